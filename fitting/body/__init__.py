"""The two body models: their files, kinematics and joint limits, and what can be read off a posed body."""
