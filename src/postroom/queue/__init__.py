"""The only code that changes a delivery's state; it knows stores, transports and clocks as interfaces."""
