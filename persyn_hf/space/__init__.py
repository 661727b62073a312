"""The allocation Space: who teaches what, and why. It reads artifacts and writes nothing."""
