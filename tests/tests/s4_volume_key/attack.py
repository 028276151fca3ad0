"""What one key of Ceph may do: tries everything, and says of each operation whether it was allowed.

Reads from standard input, as JSON, who it is and what there is; prints `PLACE: OPERATION: VERDICT` a line. The verdict is
`allowed`, `refused (EPERM)` (or EACCES, which monitors say), or `failed (…)` when Ceph came to do it and could not. Every object
that is named exists, so that a refusal is about the key.

It uses Debian's python3-rados and python3-rbd, and the `rados` command where these have no call. Nothing of BMI's.
"""

import errno
import json
import struct
import subprocess
import sys

import rados
import rbd

WORLD = json.load(sys.stdin)
POOL, USER = WORLD["pool"], WORLD["user"]
OWN, SIBLING, OTHER = WORLD["own"], WORLD["sibling"], WORLD["other"]
GOLDEN, UNRELATED, PLAIN = WORLD["golden"], WORLD["unrelated"], WORLD["plain"]
CONFIG, SIBLING_CONFIG = WORLD["config"], WORLD["sibling_config"]
# Whose key it is about, whoever holds which.
VOLUME = "client." + WORLD["volume_user"]
# A request that nobody answers is one that was refused.
LIMITS = {"rados_osd_op_timeout": "10", "rados_mon_op_timeout": "10", "client_mount_timeout": "10",
          "rbd_blocklist_on_break_lock": "false"}

cluster = rados.Rados(name="client." + USER, conffile=WORLD["conf"], conf={"keyring": WORLD["keyring"], **LIMITS})
cluster.connect()


def ioctx(namespace, pool=POOL):
    opened = cluster.open_ioctx(pool)
    opened.set_namespace(namespace)
    return opened


def named(number):
    return errno.errorcode.get(abs(number), str(abs(number)))


def said(number):
    name = named(number)
    return f"refused ({name})" if name in ("EPERM", "EACCES") else f"failed ({name})"


def attempt(place, operation, action):
    try:
        action()
        verdict = "allowed"
    except (rados.Error, rbd.Error, OSError) as error:
        number = getattr(error, "errno", None)
        verdict = said(number) if number else f"failed ({type(error).__name__})"
    print(f"{place}: {operation}: {verdict}", flush=True)


# --- what Ceph's classes read ---------------------------------------------------------------------------------------
def u8(number): return struct.pack("<B", number)
def u32(number): return struct.pack("<I", number)
def u64(number): return struct.pack("<Q", number)
def text(value): return u32(len(value)) + value.encode()


CHILD = u8(1) + u8(1) + u32(len(u64(1) + text("1234"))) + u64(1) + text("1234")
SNAP = GOLDEN["snapshot"]
HEADER_WRITES = {
    "set_size": u64(4096), "set_features": u64(1) + u64(1), "set_flags": u64(1) + u64(1) + u64(2**64 - 2),
    "op_features_set": u64(1) + u64(1), "set_stripe_unit_count": u64(4096) + u64(1),
    "set_access_timestamp": u64(0), "set_modify_timestamp": u64(0),
    "metadata_set": u32(1) + text("x") + text("y"), "metadata_remove": text("x"),
    "snapshot_add": text("evil") + u64(77), "snapshot_rename": u64(SNAP) + text("renamed"),
    "snapshot_trash_add": u64(SNAP), "snapshot_remove": u64(SNAP), "snapshot_set_limit": u64(1),
    "set_protection_status": u64(SNAP) + u8(1),
    "child_attach": u64(SNAP) + CHILD, "child_detach": u64(SNAP) + CHILD,
    "set_parent": u64(1) + text("1234") + u64(1) + u64(4096), "remove_parent": b"",
    "parent_attach": b"", "parent_detach": b"",
    "migration_set": b"", "migration_set_state": b"", "migration_remove": b"",
    "image_group_add": b"", "image_group_remove": b"", "create": b"",
}
HEADER_READS = {
    "get_size": u64(2**64 - 2), "get_features": u64(2**64 - 2) + u8(1), "get_object_prefix": b"", "get_snapcontext": b"",
    "get_parent": u64(2**64 - 2), "metadata_list": text("") + u64(10), "snapshot_get": u64(SNAP),
    "get_create_timestamp": b"", "children_list": u64(SNAP), "image_group_get": b"", "get_flags": u64(2**64 - 2),
}
DIRECTORY_WRITES = {
    "dir_add_image": text("evil") + text("abcd"), "dir_remove_image": text("evil") + text("abcd"),
    "dir_rename_image": text("evil") + text("evil2") + text("abcd"), "dir_state_set": u8(0),
}


def calls(place, namespace, key, methods, cls="rbd"):
    io = ioctx(namespace)
    for method, argument in methods.items():
        attempt(place, f"class {cls}.{method}", lambda m=method, a=argument: io.execute(key, cls, m, a))


# --- plain objects --------------------------------------------------------------------------------------------------
def reading(place, namespace, key, pool=POOL):
    io = ioctx(namespace, pool)

    def omap():
        with rados.ReadOpCtx() as op:
            _, result = io.get_omap_vals(op, "", "", 10)
            io.operate_read_op(op, key)
            if result:
                raise OSError(result, "omap")
    attempt(place, "read", lambda: io.read(key, 16))
    attempt(place, "stat", lambda: io.stat(key))
    attempt(place, "read omap", omap)
    attempt(place, "read xattrs", lambda: list(io.get_xattrs(key)))


def writing(place, namespace, key, pool=POOL):
    io = ioctx(namespace, pool)

    def omap():
        with rados.WriteOpCtx() as op:
            io.set_omap(op, ("evil",), (b"1",))
            io.operate_write_op(op, key)
    attempt(place, "lock", lambda: io.lock_exclusive(key, "evil", "cookie", "", 1))
    attempt(place, "set xattr", lambda: io.set_xattr(key, "evil", b"1"))
    attempt(place, "write omap", omap)
    attempt(place, "append", lambda: io.append(key, b"evil"))
    attempt(place, "write", lambda: io.write(key, b"evil"))
    attempt(place, "truncate", lambda: io.trunc(key, 1))
    attempt(place, "remove", lambda: io.remove_object(key))


def signalling(place, namespace, key):
    io = ioctx(namespace)

    def watch():
        io.watch(key, lambda *_: None).close()
    attempt(place, "watch", watch)
    attempt(place, "notify", lambda: io.notify(key, "evil", 1000))


def listing(place, namespace, pool=POOL):
    def objects():
        # A list that is refused ends before its first object; there are some everywhere.
        if not list(ioctx(namespace, pool).list_objects()):
            raise OSError(errno.EPERM, "no object")
    attempt(place, "list objects", objects)
    attempt(place, "list images", lambda: rbd.RBD().list(ioctx(namespace, pool)))
    attempt(place, "list trash", lambda: list(rbd.RBD().trash_list(ioctx(namespace, pool))))
    attempt(place, "list groups", lambda: list(rbd.RBD().group_list(ioctx(namespace, pool))))
    attempt(place, "create an image", lambda: rbd.RBD().create(ioctx(namespace, pool), "evil", 1 << 20))


def data_of(image): return f"rbd_data.{image['id']}.{0:016x}"
def header_of(image): return "rbd_header." + image["id"]
def map_of(image): return "rbd_object_map." + image["id"]


def opened(image, read_only=True):
    return rbd.Image(ioctx(image["namespace"]), image["name"], read_only=read_only)


def own_volume():
    place = "own volume"

    def in_image(action, read_only=False):
        def run():
            with opened(OWN, read_only) as image:
                action(image)
        return run
    attempt(place, "open", in_image(lambda image: image.size()))
    attempt(place, "read", in_image(lambda image: image.read(0, 4096)))
    attempt(place, "read what the golden image has", in_image(lambda image: image.read(12 << 20, 4096), True))
    attempt(place, "write", in_image(lambda image: (image.write(b"x" * 4096, 0), image.flush())))
    attempt(place, "write over the golden image's", in_image(lambda image: (image.write(b"x", 8 << 20), image.flush())))
    attempt(place, "discard", in_image(lambda image: (image.discard(4 << 20, 1 << 22), image.flush())))
    attempt(place, "take the exclusive lock", in_image(lambda image: image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)))
    header = ioctx(OWN["namespace"])

    def forge():
        with rados.WriteOpCtx() as op:
            header.set_omap(op, ("evil",), (b"1",))
            header.operate_write_op(op, header_of(OWN))
    attempt(place + "'s header", "write omap", forge)
    attempt(place + "'s header", "write xattr", lambda: header.set_xattr(header_of(OWN), "x", b"1"))
    attempt(place + "'s header", "class rbd.metadata_set",
            lambda: header.execute(header_of(OWN), "rbd", "metadata_set", HEADER_WRITES["metadata_set"]))
    reading(place + "'s name", OWN["namespace"], "rbd_id." + OWN["name"])


def own_volume_end():
    """What there would be less of afterwards."""
    place, space = "own volume", OWN["namespace"]

    def in_image(action):
        def run():
            with opened(OWN, False) as image:
                action(image)
        return run
    attempt(place, "make a snapshot", in_image(lambda image: image.create_snap("by " + USER)))
    attempt(place, "flatten", in_image(lambda image: image.flatten()))
    attempt(place, "rename", lambda: rbd.RBD().rename(ioctx(space), OWN["name"], "evil"))
    attempt(place, "move to the trash", lambda: rbd.RBD().trash_move(ioctx(space), OWN["name"], 0))
    attempt(place, "remove", lambda: rbd.RBD().remove(ioctx(space), OWN["name"]))
    writing(place + "'s name", space, "rbd_id." + OWN["name"])


def foreign_image(place, image):
    """An image of somebody else's: every object of it."""
    space = image["namespace"]
    attempt(place, "open", lambda: opened(image).close())
    attempt(place, "open by id", lambda: rbd.Image(ioctx(space), image_id=image["id"], read_only=True).close())
    for what, key in (("data", data_of(image)), ("header", header_of(image)), ("object map", map_of(image)),
                      ("name", "rbd_id." + image["name"])):
        reading(f"{place}'s {what}", space, key)
    calls(place + "'s header", space, header_of(image), HEADER_READS)
    calls(place + "'s header", space, header_of(image), HEADER_WRITES)
    calls(place + "'s header", space, header_of(image), {"get_info": text("rbd_lock"), "break_lock": b"", "lock": b""}, "lock")
    calls(place + "'s object map", space, map_of(image), {
        "object_map_load": b"", "object_map_update": u64(0) + u64(1) + u8(0) + u8(0), "object_map_resize": u64(1) + u8(0),
        "object_map_save": b"", "object_map_snap_add": b"", "object_map_snap_remove": b""})
    calls(place + "'s data", space, data_of(image), {"copyup": b"evil", "sparse_copyup": b"", "sparsify": u64(4096) + u8(0)})
    calls(place + "'s name", space, "rbd_id." + image["name"], {"get_id": b"", "set_id": text("abcd")})
    signalling(place + "'s header", space, header_of(image))


def foreign_writes(place, image):
    for what, key in (("object map", map_of(image)), ("data", data_of(image)), ("name", "rbd_id." + image["name"]),
                      ("header", header_of(image))):
        writing(f"{place}'s {what}", image["namespace"], key)


def directory(place, namespace):
    calls(place, namespace, "rbd_directory", {"dir_list": text("") + u64(10), "dir_get_id": text(WORLD["listed"][namespace][0]),
                                              "dir_get_name": text(WORLD["listed"][namespace][1])})
    reading(place, namespace, "rbd_directory")
    calls(place, namespace, "rbd_directory", DIRECTORY_WRITES)
    calls(place.replace("directory", "trash"), namespace, "rbd_trash",
          {"trash_list": text("") + u64(10), "trash_add": text("abcd"), "trash_remove": text("abcd")})


def rados_command(*arguments):
    command = ["timeout", "20", "rados", "--conf", WORLD["conf"], "--id", USER, "--keyring", WORLD["keyring"], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        number = done.stderr.rsplit("(", 1)[-1].split(")")[0]
        raise OSError(int(number) if number.isdigit() else errno.EIO, done.stderr)


def through_the_osd():
    """What an OSD does for whoever may write one object: it must ask for both."""
    space, mine = OWN["namespace"], f"rbd_data.{OWN['id']}."
    for place, (namespace, pool, key) in {
            "a sibling's data": (SIBLING["namespace"], POOL, data_of(SIBLING)),
            "another namespace's directory": (OTHER["namespace"], POOL, "rbd_directory"),
            "the list of namespaces": ("", POOL, "rbd_namespace"),
            "another pool's object": ("", WORLD["other_pool"], "secret")}.items():
        slot = f"{mine}{USER}.{abs(hash(place))}"
        attempt(place, "copy into an own object", lambda n=namespace, p=pool, k=key, s=slot: rados_command(
            "--pool", p, "--namespace", n, "cp", k, s, "--target-pool", POOL, "--target-nspace", space))
        if namespace:
            continue
        slot += ".redirect"
        rados_command("--pool", POOL, "--namespace", space, "create", slot)
        attempt(place, "make an own object a redirect to it", lambda p=pool, k=key, s=slot: rados_command(
            "--pool", POOL, "--namespace", space, "set-redirect", s, "--target-pool", p, k))
        io = ioctx(space)
        attempt(place, "read it through the redirect", lambda s=slot: io.read(s))
        attempt(place, "write it through the redirect", lambda s=slot: io.write(s, b"evil"))


def pool_operations():
    io, place = ioctx(""), "pool"
    attempt(place, "statistics", io.get_stats)
    attempt(place, "applications", io.application_list)
    attempt(place, "set application metadata", lambda: io.application_metadata_set("rbd", "evil", "1"))
    attempt(place, "make a pool snapshot", lambda: io.create_snap("evil"))
    attempt(place, "make a self-managed snapshot", io.create_self_managed_snap)
    attempt(place, "list namespaces", lambda: rbd.RBD().namespace_list(io))
    attempt(place, "class rbd.namespace_list", lambda: io.execute("rbd_namespace", "rbd", "namespace_list", text("") + u64(10)))
    attempt(place, "create a namespace", lambda: rbd.RBD().namespace_create(io, "evil"))
    attempt(place, "remove a namespace", lambda: rbd.RBD().namespace_remove(io, "empty"))
    attempt(place, "metadata list", lambda: list(rbd.RBD().pool_metadata_list(io)))
    attempt(place, "metadata set", lambda: rbd.RBD().pool_metadata_set(io, "conf_rbd_cache", "false"))
    attempt(place, "mirror mode", lambda: rbd.RBD().mirror_mode_get(io))
    attempt(place, "set mirror mode", lambda: rbd.RBD().mirror_mode_set(io, rbd.RBD_MIRROR_MODE_IMAGE))
    calls(place, "", "rbd_children", {"get_children": b"", "add_child": b"", "remove_child": b""})
    calls(place, "", "rbd_mirroring", {"mirror_mode_get": b"", "mirror_mode_set": u32(1), "mirror_uuid_set": text("x")})
    attempt(place, "create", lambda: cluster.create_pool("evil"))
    attempt(place, "delete", lambda: cluster.delete_pool(WORLD["doomed_pool"]))


MON = {
    "read": [{"prefix": "mon dump"}, {"prefix": "osd dump"}, {"prefix": "osd tree"}, {"prefix": "osd pool ls"}, {"prefix": "df"},
             {"prefix": "status"}, {"prefix": "health"}, {"prefix": "pg dump"}, {"prefix": "osd blocklist ls"},
             {"prefix": "log last", "num": 5}, {"prefix": "config dump"}, {"prefix": "config get", "who": "osd.0"},
             {"prefix": "config log"}, {"prefix": "config-key ls"}, {"prefix": "config-key get", "key": "secret"},
             {"prefix": "config-key dump"}, {"prefix": "auth ls"}, {"prefix": "auth get", "entity": "client.admin"},
             {"prefix": "auth get-key", "entity": "client.admin"}, {"prefix": "auth export"}, {"prefix": "mon metadata"},
             {"prefix": "osd metadata"}, {"prefix": "mgr dump"}, {"prefix": "service dump"}, {"prefix": "fs dump"},
             {"prefix": "versions"}, {"prefix": "osd map", "pool": POOL, "object": "x"}, {"prefix": "osd getmap"},
             {"prefix": "osd getcrushmap"}, {"prefix": "node ls"}],
    "change": [{"prefix": "auth get", "entity": VOLUME},
               {"prefix": "auth get-or-create", "entity": "client.evil", "caps": ["mon", "allow *"]},
               {"prefix": "auth caps", "entity": VOLUME, "caps": ["mon", "allow *", "osd", "allow *"]},
               {"prefix": "auth rm", "entity": "client.doomed"},
               {"prefix": "osd blocklist", "blocklistop": "add", "addr": "10.9.9.9:0/1"},
               {"prefix": "osd blocklist", "blocklistop": "rm", "addr": "10.9.9.9:0/1"},
               {"prefix": "config set", "who": "osd", "name": "debug_osd", "value": "0"},
               {"prefix": "config-key set", "key": "evil", "val": "1"},
               {"prefix": "osd pool set", "pool": POOL, "var": "nosizechange", "val": "false"},
               {"prefix": "osd pool set-quota", "pool": POOL, "field": "max_bytes", "val": "0"},
               {"prefix": "osd pool application enable", "pool": POOL, "app": "rbd"},
               {"prefix": "osd set", "key": "noout"}, {"prefix": "osd unset", "key": "noout"},
               {"prefix": "osd down", "ids": ["7"]}, {"prefix": "osd out", "ids": ["7"]},
               {"prefix": "osd purge", "id": 7, "yes_i_really_mean_it": True},
               {"prefix": "log", "logtext": ["evil"]}, {"prefix": "mgr fail", "who": "nobody"},
               {"prefix": "osd set-require-min-compat-client", "version": "mimic"}],
}


def command(send, what):
    def run():
        number, _, _ = send(json.dumps({"format": "json", **what}), b"")
        if number < 0:
            raise OSError(-number, "")
    return run


def words(what):
    rest = [str(value) for name, value in what.items() if name in ("entity", "blocklistop", "key", "who", "var", "field")]
    return " ".join([what["prefix"], *rest]).replace(VOLUME, "client.volume")


def monitors():
    for what in MON["read"] + MON["change"]:
        attempt("monitor", words(what), command(cluster.mon_command, what))
    attempt("monitor", "cluster's space (statfs)", cluster.get_cluster_stats)
    attempt("monitor", "blocklist (librados)", lambda: cluster.blocklist_add("10.9.9.9:0/2", 60))
    for what in ({"prefix": "config show"}, {"prefix": "injectargs", "injected_args": ["--debug_mon=0"]}, {"prefix": "sessions"}):
        attempt("monitor", "tell " + what["prefix"], command(lambda c, b: cluster.mon_command(c, b, target="a"), what))
    for what in ({"prefix": "pg dump"}, {"prefix": "config show", "who": "osd.0"}, {"prefix": "osd pool stats"},
                 {"prefix": "rbd task list"}, {"prefix": "mgr self-test run"}, {"prefix": "device ls"}):
        attempt("manager", what["prefix"], command(cluster.mgr_command, what))
    for what in ({"prefix": "version"}, {"prefix": "config show"}, {"prefix": "injectargs", "injected_args": ["--debug_osd=0"]},
                 {"prefix": "bench", "count": 4096, "size": 4096}, {"prefix": "dump_blocklist"}):
        attempt("OSD", "tell " + what["prefix"], command(lambda c, b: cluster.osd_command(0, c, b), what))


own_volume()
listing("own namespace", OWN["namespace"])
directory("own namespace's directory", OWN["namespace"])
foreign_image("golden image", GOLDEN)
directory("golden namespace's directory", GOLDEN["namespace"])
listing("golden namespace", GOLDEN["namespace"])
attempt("golden image", "clone into the own namespace", lambda: rbd.RBD().clone(
    ioctx(GOLDEN["namespace"]), GOLDEN["name"], WORLD["snapshot_name"], ioctx(OWN["namespace"]), "evil"))
for title, one in (("own config volume", CONFIG), ("unrelated golden image", UNRELATED), ("sibling", SIBLING),
                   ("sibling's config volume", SIBLING_CONFIG), ("other namespace's image", OTHER),
                   ("default namespace's image", PLAIN)):
    foreign_image(title, one)
listing("other namespace", OTHER["namespace"])
directory("other namespace's directory", OTHER["namespace"])
listing("default namespace", "")
listing("every namespace", rados.LIBRADOS_ALL_NSPACES)
listing("another pool", "", WORLD["other_pool"])
reading("another pool's object", "", "secret", WORLD["other_pool"])
attempt("another pool", "write an object of the own prefix into the own namespace", lambda: ioctx(
    OWN["namespace"], WORLD["other_pool"]).write(f"rbd_data.{OWN['id']}.x", b"evil"))
through_the_osd()
pool_operations()
monitors()
# What would be gone afterwards.
writing("another pool's object", "", "secret", WORLD["other_pool"])
for title, one in (("golden image", GOLDEN), ("own config volume", CONFIG), ("unrelated golden image", UNRELATED),
                   ("sibling", SIBLING), ("sibling's config volume", SIBLING_CONFIG), ("other namespace's image", OTHER),
                   ("default namespace's image", PLAIN)):
    foreign_writes(title, one)
own_volume_end()
attempt("golden image", "remove its snapshot by number", lambda: ioctx("").remove_self_managed_snap(SNAP))
