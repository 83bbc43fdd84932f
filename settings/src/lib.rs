//! Settings in layers: flag, environment, file, default; every problem at once.
