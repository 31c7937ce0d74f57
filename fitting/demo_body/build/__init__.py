"""What made the embedded body (`python -m fitting.demo_body.build`); nothing imports it."""
