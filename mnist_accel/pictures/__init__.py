"""Reads any picture: finds its digits, brings each to MNIST's form, and labels it with a given model."""
