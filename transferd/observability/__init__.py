"""What the service tells about itself: facts, and what metrics and logs make of them."""
