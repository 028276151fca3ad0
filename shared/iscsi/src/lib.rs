//! shared/iscsi
