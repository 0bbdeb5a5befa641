"""What tests of every kind share: images, keys and drops, made without the code under test."""
