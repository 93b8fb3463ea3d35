"""Components of HashDoor that live in a package of their own."""
