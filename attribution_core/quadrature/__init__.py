"""The nodes of the path integral: rules, calibration, adaptive quadrature, and cached calibrations."""
