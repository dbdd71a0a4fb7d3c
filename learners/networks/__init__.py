"""Networks: torsos that make features of observations, heads that make values or actions of features."""
