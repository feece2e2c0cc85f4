"""Kinds of servers that models are asked through."""
