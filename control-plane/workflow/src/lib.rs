//! control-plane/workflow
