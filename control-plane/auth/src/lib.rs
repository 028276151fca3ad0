//! control-plane/auth
