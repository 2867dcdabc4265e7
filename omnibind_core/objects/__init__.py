"""What is where: one prediction for each thing, from every sensor that sees it. No ROS, no torch."""
