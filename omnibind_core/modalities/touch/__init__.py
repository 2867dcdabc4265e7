"""Pictures of a tactile sensor: pressure arrays and camera-based skins."""
