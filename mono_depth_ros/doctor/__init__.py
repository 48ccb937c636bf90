"""What `depth_doctor` looks at, and what it makes of it."""
