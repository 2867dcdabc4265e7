"""The family ``open_clip``: OpenCLIP's and OpenAI's CLIP towers; weights of the user only."""
