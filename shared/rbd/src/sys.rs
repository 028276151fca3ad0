//! What this crate uses of librados and librbd, as `bindgen` writes it down. Checked in, so that a build needs neither
//! `bindgen` nor clang. To add a call, copy its declaration from what this prints, with `headers.h` including
//! `<rados/librados.h>` and `<rbd/librbd.h>`:
//!
//! ```text
//! bindgen headers.h --rust-target 1.85 --rust-edition 2024 --no-layout-tests --no-doc-comments --merge-extern-blocks
//!     --default-enum-style consts --no-prepend-enum-name --allowlist-function 'rbd_CALL|rados_CALL'
//! ```

#![allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    dead_code,
    reason = "the names are those of the C headers"
)]

pub const RBD_FEATURE_LAYERING: u32 = 1;
pub const RBD_FEATURE_STRIPINGV2: u32 = 2;
pub const RBD_FEATURE_EXCLUSIVE_LOCK: u32 = 4;
pub const RBD_FEATURE_OBJECT_MAP: u32 = 8;
pub const RBD_FEATURE_FAST_DIFF: u32 = 16;
pub const RBD_FEATURE_DEEP_FLATTEN: u32 = 32;
pub const RBD_FEATURE_JOURNALING: u32 = 64;
pub const RBD_FEATURE_DATA_POOL: u32 = 128;
pub const RBD_FEATURE_OPERATIONS: u32 = 256;
pub const RBD_FEATURE_MIGRATING: u32 = 512;
pub const RBD_FEATURE_NON_PRIMARY: u32 = 1024;
pub const RBD_FEATURE_DIRTY_CACHE: u32 = 2048;
pub const RBD_SNAP_REMOVE_UNPROTECT: u32 = 1;
pub const RBD_SNAP_REMOVE_FLATTEN: u32 = 2;
pub const RBD_SNAP_REMOVE_FORCE: u32 = 3;
pub type __time_t = ::std::os::raw::c_long;
pub type time_t = __time_t;
pub type __syscall_slong_t = ::std::os::raw::c_long;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct timespec {
    pub tv_sec: __time_t,
    pub tv_nsec: __syscall_slong_t,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct timeval {
    pub tv_sec: __time_t,
    pub tv_usec: ::std::os::raw::c_long,
}
pub type rados_t = *mut ::std::os::raw::c_void;
pub type rados_ioctx_t = *mut ::std::os::raw::c_void;
pub type rbd_image_t = *mut ::std::os::raw::c_void;
pub type rbd_image_options_t = *mut ::std::os::raw::c_void;
pub type rbd_completion_t = *mut ::std::os::raw::c_void;
pub type rbd_callback_t =
    ::std::option::Option<unsafe extern "C" fn(cb: rbd_completion_t, arg: *mut ::std::os::raw::c_void)>;
pub type librbd_progress_fn_t = ::std::option::Option<
    unsafe extern "C" fn(offset: u64, total: u64, ptr: *mut ::std::os::raw::c_void) -> ::std::os::raw::c_int,
>;
pub const RBD_SNAP_NAMESPACE_TYPE_USER: rbd_snap_namespace_type_t = 0;
pub const RBD_SNAP_NAMESPACE_TYPE_GROUP: rbd_snap_namespace_type_t = 1;
pub const RBD_SNAP_NAMESPACE_TYPE_TRASH: rbd_snap_namespace_type_t = 2;
pub const RBD_SNAP_NAMESPACE_TYPE_MIRROR: rbd_snap_namespace_type_t = 3;
pub type rbd_snap_namespace_type_t = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_image_spec_t {
    pub id: *mut ::std::os::raw::c_char,
    pub name: *mut ::std::os::raw::c_char,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_linked_image_spec_t {
    pub pool_id: i64,
    pub pool_name: *mut ::std::os::raw::c_char,
    pub pool_namespace: *mut ::std::os::raw::c_char,
    pub image_id: *mut ::std::os::raw::c_char,
    pub image_name: *mut ::std::os::raw::c_char,
    pub trash: bool,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_snap_spec_t {
    pub id: u64,
    pub namespace_type: rbd_snap_namespace_type_t,
    pub name: *mut ::std::os::raw::c_char,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_snap_info_t {
    pub id: u64,
    pub size: u64,
    pub name: *const ::std::os::raw::c_char,
}
pub const RBD_LOCK_MODE_EXCLUSIVE: rbd_lock_mode_t = 0;
pub const RBD_LOCK_MODE_SHARED: rbd_lock_mode_t = 1;
pub type rbd_lock_mode_t = ::std::os::raw::c_uint;
pub const RBD_IMAGE_OPTION_FORMAT: _bindgen_ty_15 = 0;
pub const RBD_IMAGE_OPTION_FEATURES: _bindgen_ty_15 = 1;
pub const RBD_IMAGE_OPTION_ORDER: _bindgen_ty_15 = 2;
pub const RBD_IMAGE_OPTION_STRIPE_UNIT: _bindgen_ty_15 = 3;
pub const RBD_IMAGE_OPTION_STRIPE_COUNT: _bindgen_ty_15 = 4;
pub const RBD_IMAGE_OPTION_JOURNAL_ORDER: _bindgen_ty_15 = 5;
pub const RBD_IMAGE_OPTION_JOURNAL_SPLAY_WIDTH: _bindgen_ty_15 = 6;
pub const RBD_IMAGE_OPTION_JOURNAL_POOL: _bindgen_ty_15 = 7;
pub const RBD_IMAGE_OPTION_FEATURES_SET: _bindgen_ty_15 = 8;
pub const RBD_IMAGE_OPTION_FEATURES_CLEAR: _bindgen_ty_15 = 9;
pub const RBD_IMAGE_OPTION_DATA_POOL: _bindgen_ty_15 = 10;
pub const RBD_IMAGE_OPTION_FLATTEN: _bindgen_ty_15 = 11;
pub const RBD_IMAGE_OPTION_CLONE_FORMAT: _bindgen_ty_15 = 12;
pub const RBD_IMAGE_OPTION_MIRROR_IMAGE_MODE: _bindgen_ty_15 = 13;
pub type _bindgen_ty_15 = ::std::os::raw::c_uint;
pub const RBD_TRASH_IMAGE_SOURCE_USER: rbd_trash_image_source_t = 0;
pub const RBD_TRASH_IMAGE_SOURCE_MIRRORING: rbd_trash_image_source_t = 1;
pub const RBD_TRASH_IMAGE_SOURCE_MIGRATION: rbd_trash_image_source_t = 2;
pub const RBD_TRASH_IMAGE_SOURCE_REMOVING: rbd_trash_image_source_t = 3;
pub const RBD_TRASH_IMAGE_SOURCE_USER_PARENT: rbd_trash_image_source_t = 4;
pub type rbd_trash_image_source_t = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_trash_image_info_t {
    pub id: *mut ::std::os::raw::c_char,
    pub name: *mut ::std::os::raw::c_char,
    pub source: rbd_trash_image_source_t,
    pub deletion_time: time_t,
    pub deferment_end_time: time_t,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct rbd_image_watcher_t {
    pub addr: *mut ::std::os::raw::c_char,
    pub id: i64,
    pub cookie: u64,
}
pub const RBD_WRITE_ZEROES_FLAG_THICK_PROVISION: _bindgen_ty_16 = 1;
pub type _bindgen_ty_16 = ::std::os::raw::c_uint;
unsafe extern "C" {
    pub fn rados_create2(
        pcluster: *mut rados_t,
        clustername: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
        flags: u64,
    ) -> ::std::os::raw::c_int;
    pub fn rados_connect(cluster: rados_t) -> ::std::os::raw::c_int;
    pub fn rados_shutdown(cluster: rados_t);
    pub fn rados_conf_read_file(
        cluster: rados_t,
        path: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rados_conf_set(
        cluster: rados_t,
        option: *const ::std::os::raw::c_char,
        value: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rados_conf_get(
        cluster: rados_t,
        option: *const ::std::os::raw::c_char,
        buf: *mut ::std::os::raw::c_char,
        len: usize,
    ) -> ::std::os::raw::c_int;
    pub fn rados_cluster_fsid(
        cluster: rados_t,
        buf: *mut ::std::os::raw::c_char,
        len: usize,
    ) -> ::std::os::raw::c_int;
    pub fn rados_get_instance_id(cluster: rados_t) -> u64;
    pub fn rados_wait_for_latest_osdmap(cluster: rados_t) -> ::std::os::raw::c_int;
    pub fn rados_ioctx_create(
        cluster: rados_t,
        pool_name: *const ::std::os::raw::c_char,
        ioctx: *mut rados_ioctx_t,
    ) -> ::std::os::raw::c_int;
    pub fn rados_ioctx_destroy(io: rados_ioctx_t);
    pub fn rados_ioctx_set_namespace(io: rados_ioctx_t, nspace: *const ::std::os::raw::c_char);
    pub fn rados_set_pool_full_try(io: rados_ioctx_t);
    pub fn rados_getaddrs(cluster: rados_t, addrs: *mut *mut ::std::os::raw::c_char)
    -> ::std::os::raw::c_int;
    pub fn rados_buffer_free(buf: *mut ::std::os::raw::c_char);
    pub fn rbd_image_options_create(opts: *mut rbd_image_options_t);
    pub fn rbd_image_options_destroy(opts: rbd_image_options_t);
    pub fn rbd_image_options_set_uint64(
        opts: rbd_image_options_t,
        optname: ::std::os::raw::c_int,
        optval: u64,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_image_spec_list_cleanup(images: *mut rbd_image_spec_t, num_images: usize);
    pub fn rbd_linked_image_spec_cleanup(image: *mut rbd_linked_image_spec_t);
    pub fn rbd_linked_image_spec_list_cleanup(images: *mut rbd_linked_image_spec_t, num_images: usize);
    pub fn rbd_snap_spec_cleanup(snap: *mut rbd_snap_spec_t);
    pub fn rados_exec(
        io: rados_ioctx_t,
        oid: *const ::std::os::raw::c_char,
        cls: *const ::std::os::raw::c_char,
        method: *const ::std::os::raw::c_char,
        in_buf: *const ::std::os::raw::c_char,
        in_len: usize,
        buf: *mut ::std::os::raw::c_char,
        out_len: usize,
    ) -> ::std::os::raw::c_int;
    pub fn rados_list_lockers(
        io: rados_ioctx_t,
        o: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
        exclusive: *mut ::std::os::raw::c_int,
        tag: *mut ::std::os::raw::c_char,
        tag_len: *mut usize,
        clients: *mut ::std::os::raw::c_char,
        clients_len: *mut usize,
        cookies: *mut ::std::os::raw::c_char,
        cookies_len: *mut usize,
        addrs: *mut ::std::os::raw::c_char,
        addrs_len: *mut usize,
    ) -> isize;
    pub fn rados_lock_exclusive(
        io: rados_ioctx_t,
        oid: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
        cookie: *const ::std::os::raw::c_char,
        desc: *const ::std::os::raw::c_char,
        duration: *mut timeval,
        flags: u8,
    ) -> ::std::os::raw::c_int;
    pub fn rados_unlock(
        io: rados_ioctx_t,
        o: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
        cookie: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rados_break_lock(
        io: rados_ioctx_t,
        o: *const ::std::os::raw::c_char,
        name: *const ::std::os::raw::c_char,
        client: *const ::std::os::raw::c_char,
        cookie: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rados_mon_command(
        cluster: rados_t,
        cmd: *mut *const ::std::os::raw::c_char,
        cmdlen: usize,
        inbuf: *const ::std::os::raw::c_char,
        inbuflen: usize,
        outbuf: *mut *mut ::std::os::raw::c_char,
        outbuflen: *mut usize,
        outs: *mut *mut ::std::os::raw::c_char,
        outslen: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_list2(
        io: rados_ioctx_t,
        images: *mut rbd_image_spec_t,
        max_images: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_create4(
        io: rados_ioctx_t,
        name: *const ::std::os::raw::c_char,
        size: u64,
        opts: rbd_image_options_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_clone3(
        p_ioctx: rados_ioctx_t,
        p_name: *const ::std::os::raw::c_char,
        p_snapname: *const ::std::os::raw::c_char,
        c_ioctx: rados_ioctx_t,
        c_name: *const ::std::os::raw::c_char,
        c_opts: rbd_image_options_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_rename(
        src_io_ctx: rados_ioctx_t,
        srcname: *const ::std::os::raw::c_char,
        destname: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_trash_move(
        io: rados_ioctx_t,
        name: *const ::std::os::raw::c_char,
        delay: u64,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_trash_list(
        io: rados_ioctx_t,
        trash_entries: *mut rbd_trash_image_info_t,
        num_entries: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_trash_list_cleanup(trash_entries: *mut rbd_trash_image_info_t, num_entries: usize);
    pub fn rbd_trash_remove_with_progress(
        io: rados_ioctx_t,
        id: *const ::std::os::raw::c_char,
        force: bool,
        cb: librbd_progress_fn_t,
        cbdata: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_open(
        io: rados_ioctx_t,
        name: *const ::std::os::raw::c_char,
        image: *mut rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_open_read_only(
        io: rados_ioctx_t,
        name: *const ::std::os::raw::c_char,
        image: *mut rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_open_by_id_read_only(
        io: rados_ioctx_t,
        id: *const ::std::os::raw::c_char,
        image: *mut rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_close(image: rbd_image_t) -> ::std::os::raw::c_int;
    pub fn rbd_resize2(
        image: rbd_image_t,
        size: u64,
        allow_shrink: bool,
        cb: librbd_progress_fn_t,
        cbdata: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_get_size(image: rbd_image_t, size: *mut u64) -> ::std::os::raw::c_int;
    pub fn rbd_get_features(image: rbd_image_t, features: *mut u64) -> ::std::os::raw::c_int;
    pub fn rbd_get_modify_timestamp(image: rbd_image_t, timestamp: *mut timespec) -> ::std::os::raw::c_int;
    pub fn rbd_get_id(
        image: rbd_image_t,
        id: *mut ::std::os::raw::c_char,
        id_len: usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_get_parent(
        image: rbd_image_t,
        parent_image: *mut rbd_linked_image_spec_t,
        parent_snap: *mut rbd_snap_spec_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_is_exclusive_lock_owner(
        image: rbd_image_t,
        is_owner: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_lock_acquire(image: rbd_image_t, lock_mode: rbd_lock_mode_t) -> ::std::os::raw::c_int;
    pub fn rbd_snap_list(
        image: rbd_image_t,
        snaps: *mut rbd_snap_info_t,
        max_snaps: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_snap_list_end(snaps: *mut rbd_snap_info_t);
    pub fn rbd_snap_create(
        image: rbd_image_t,
        snapname: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_snap_remove2(
        image: rbd_image_t,
        snap_name: *const ::std::os::raw::c_char,
        flags: u32,
        cb: librbd_progress_fn_t,
        cbdata: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_snap_get_id(
        image: rbd_image_t,
        snapname: *const ::std::os::raw::c_char,
        snap_id: *mut u64,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_snap_set(image: rbd_image_t, snapname: *const ::std::os::raw::c_char)
    -> ::std::os::raw::c_int;
    pub fn rbd_flatten_with_progress(
        image: rbd_image_t,
        cb: librbd_progress_fn_t,
        cbdata: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_update_features(image: rbd_image_t, features: u64, enabled: u8) -> ::std::os::raw::c_int;
    pub fn rbd_get_flags(image: rbd_image_t, flags: *mut u64) -> ::std::os::raw::c_int;
    pub fn rbd_rebuild_object_map(
        image: rbd_image_t,
        cb: librbd_progress_fn_t,
        cbdata: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_list_children3(
        image: rbd_image_t,
        images: *mut rbd_linked_image_spec_t,
        max_images: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_diff_iterate2(
        image: rbd_image_t,
        fromsnapname: *const ::std::os::raw::c_char,
        ofs: u64,
        len: u64,
        include_parent: u8,
        whole_object: u8,
        cb: ::std::option::Option<
            unsafe extern "C" fn(
                arg1: u64,
                arg2: usize,
                arg3: ::std::os::raw::c_int,
                arg4: *mut ::std::os::raw::c_void,
            ) -> ::std::os::raw::c_int,
        >,
        arg: *mut ::std::os::raw::c_void,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_write2(
        image: rbd_image_t,
        off: u64,
        len: usize,
        buf: *const ::std::os::raw::c_char,
        c: rbd_completion_t,
        op_flags: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_read2(
        image: rbd_image_t,
        off: u64,
        len: usize,
        buf: *mut ::std::os::raw::c_char,
        c: rbd_completion_t,
        op_flags: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_discard(
        image: rbd_image_t,
        off: u64,
        len: u64,
        c: rbd_completion_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_write_zeroes(
        image: rbd_image_t,
        off: u64,
        len: usize,
        c: rbd_completion_t,
        zero_flags: ::std::os::raw::c_int,
        op_flags: ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_create_completion(
        cb_arg: *mut ::std::os::raw::c_void,
        complete_cb: rbd_callback_t,
        c: *mut rbd_completion_t,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_aio_get_return_value(c: rbd_completion_t) -> isize;
    pub fn rbd_aio_release(c: rbd_completion_t);
    pub fn rbd_aio_flush(image: rbd_image_t, c: rbd_completion_t) -> ::std::os::raw::c_int;
    pub fn rbd_metadata_get(
        image: rbd_image_t,
        key: *const ::std::os::raw::c_char,
        value: *mut ::std::os::raw::c_char,
        val_len: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_metadata_set(
        image: rbd_image_t,
        key: *const ::std::os::raw::c_char,
        value: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_watchers_list(
        image: rbd_image_t,
        watchers: *mut rbd_image_watcher_t,
        max_watchers: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_watchers_list_cleanup(watchers: *mut rbd_image_watcher_t, num_watchers: usize);
    pub fn rbd_namespace_create(
        io: rados_ioctx_t,
        namespace_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_namespace_remove(
        io: rados_ioctx_t,
        namespace_name: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_namespace_list(
        io: rados_ioctx_t,
        namespace_names: *mut ::std::os::raw::c_char,
        size: *mut usize,
    ) -> ::std::os::raw::c_int;
    pub fn rbd_namespace_exists(
        io: rados_ioctx_t,
        namespace_name: *const ::std::os::raw::c_char,
        exists: *mut bool,
    ) -> ::std::os::raw::c_int;
}
