//! shared/block
