"""The fusion node and the sensor node."""
