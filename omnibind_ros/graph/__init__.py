"""What lies between nodes: topics and their QoS, which of them are sensors, the transport."""
