//! `shaftlog sync`: deliver what is there now, end when it is durably confirmed.

mod summary;
