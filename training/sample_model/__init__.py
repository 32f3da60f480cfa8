"""Makes the sample model that ships: pictures, scenes, styles, and the networks trained on them."""
