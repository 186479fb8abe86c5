"""`medveil demo`: one consortium on this machine does the main job on real data, step by step."""
