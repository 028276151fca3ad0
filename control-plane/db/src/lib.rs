//! control-plane/db
