"""The durable log of finished generations."""
