"""The families ``imagebind`` and ``point_bind``: ImageBind, Point-Bind, UniBind; weights of the user only."""
