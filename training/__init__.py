"""Trains, measures and exports the networks; needs torch, and is no part of a robot's install."""
