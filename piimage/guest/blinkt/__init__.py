"""The light bar Blinkt of Pimoroni: eight APA102 LEDs on two GPIO lines. `piimage-blinkt` on a node."""
