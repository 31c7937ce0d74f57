"""One page to look at fitted people: skin, bones, angles over time, the picture they were seen in."""
