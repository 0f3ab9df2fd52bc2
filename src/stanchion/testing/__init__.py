"""What users and adapters test with."""
