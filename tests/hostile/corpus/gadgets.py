"""Code that a pickle names: functions that published bypasses of torch.load(weights_only=True), picklescan, fickling
and modelscan have called, in every way in which a pickle can call. It is stored, named, and never run.

After the advisories of those projects (CVE-2025-32434, CVE-2025-1716, CVE-2025-1889, CVE-2025-1944, CVE-2025-1945,
CVE-2025-10155 to -10157, and the lists of unsafe imports that followed).
"""

import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable

from tests.hostile.corpus.base import CONTAINERS, Files, inert, refused
from tests.hostile.make import text

NAMES = [
    "os.system",
    "posix.system",
    "nt.system",
    "os.popen",
    "os.execv",
    "os.spawnl",
    "subprocess.Popen",
    "subprocess.check_output",
    "pty.spawn",
    "builtins.eval",
    "builtins.exec",
    "builtins.compile",
    "builtins.__import__",
    "builtins.getattr",
    "builtins.open",
    "builtins.breakpoint",
    "__builtin__.eval",
    "__builtin__.execfile",
    "__builtin__.apply",
    "commands.getoutput",
    "runpy.run_path",
    "runpy._run_code",
    "code.interact",
    "importlib.import_module",
    "importlib._bootstrap._load",
    "imp.load_source",
    "pkgutil.resolve_name",
    "zipimport.zipimporter",
    "pip.main",
    "pip._internal.main",
    "ensurepip._run_pip",
    "venv.create",
    "marshal.loads",
    "types.CodeType",
    "types.FunctionType",
    "pickle.loads",
    "_pickle.loads",
    "cPickle.loads",
    "dill.loads",
    "cloudpickle.loads",
    "joblib.load",
    "shelve.open",
    "operator.attrgetter",
    "operator.methodcaller",
    "_operator.methodcaller",
    "functools.partial",
    "functools.reduce",
    "itertools.starmap",
    "ctypes.CDLL",
    "_ctypes.dlopen",
    "cffi.FFI",
    "_posixsubprocess.fork_exec",
    "multiprocessing.util.spawnv_passfds",
    "asyncio.unix_events._UnixSubprocessTransport._start",
    "asyncio.create_subprocess_shell",
    "timeit.timeit",
    "cProfile.run",
    "profile.run",
    "profile.Profile.runctx",
    "trace.Trace.run",
    "pdb.run",
    "bdb.Bdb.run",
    "doctest.debug_script",
    "idlelib.pyshell.ModifiedInterpreter.runcode",
    "idlelib.autocomplete.AutoComplete.get_entity",
    "lib2to3.pgen2.grammar.Grammar.loads",
    "distutils.file_util.write_file",
    "_io.FileIO",
    "io.open_code",
    "shutil.rmtree",
    "shutil.move",
    "tempfile.mktemp",
    "pathlib.Path.write_text",
    "webbrowser.open",
    "smtplib.SMTP",
    "socket.create_connection",
    "urllib.request.urlopen",
    "requests.get",
    "http.client.HTTPSConnection",
    "aiohttp.request",
    "ssl.get_server_certificate",
    "ftplib.FTP",
    "httplib.HTTPConnection",
    "torch.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.storage._load_from_bytes",
    "torch.serialization.load",
    "torch.jit.unsupported_tensor_ops.execWrapper",
    "torch.utils.collect_env.run",
    "torch.utils._config_module.load_config",
    "torch._dynamo.guards.GuardBuilder.get",
    "torch._inductor.codecache.compile_file",
    "torch.ops.load_library",
    "torch.classes.load_library",
    "torch.utils.bottleneck.__main__.run_cprofile",
    "torch.utils.data.datapipes.utils.decoder.basichandlers",
    "torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression",
    "torch.fx.graph_module._exec_with_source",
    "torch.cuda._lazy_call",
    "torch.nn.modules.module.register_module_forward_hook",
    "torch.distributed.rpc.internal._run_function",
    "numpy.testing._private.utils.runstring",
    "numpy.f2py.crackfortran.getlincoef",
    "numpy.f2py.crackfortran._eval_length",
    "numpy.load",
    "numpy.core._multiarray_umath.frombuffer",
    "pandas.read_pickle",
    "pandas.eval",
    "sympy.sympify",
    "tensorflow.keras.models.load_model",
    "site.addpackage",
    "atexit.register",
    "sys.settrace",
    "sys.setprofile",
    "signal.signal",
    "gc.get_objects",
    "inspect.getattr_static",
    "logging.config._resolve",
    "logging.config.dictConfig",
    "uuid._get_command_stdout",
    "_osx_support._read_output",
    "_aix_support._read_cmd_output",
    "_interpreters.run_string",
    "_xxsubinterpreters.run_string",
    "test.support.script_helper.assert_python_ok",
    "unittest.mock._importer",
    "pydoc.locate",
    "pydoc.pipepager",
    "xmlrpc.client.ServerProxy",
    "getpass.unix_getpass",
    "cgitb.lookup",
    "fickling.hook.deactivate_safe_ml_environment",
    "picklescan.scanner._unsafe_globals.clear",
    "nose.tools.eval",
]
assert len(set(NAMES)) == len(NAMES)

COMMAND = text("touch owned")


def split(name: str) -> tuple[bytes, bytes]:
    module, _, function = name.rpartition(".")
    return module.encode(), function.encode()


Call = Callable[[bytes, bytes], bytes]

CALLS: dict[str, tuple[Call, int]] = {
    "GLOBAL, REDUCE": (lambda m, f: b"c" + m + b"\n" + f + b"\n" + COMMAND + b"\x85R", 2),
    "INST": (lambda m, f: b"(" + COMMAND + b"i" + m + b"\n" + f + b"\n", 0),
    "OBJ": (lambda m, f: b"(c" + m + b"\n" + f + b"\n" + COMMAND + b"o", 1),
    "NEWOBJ": (lambda m, f: b"c" + m + b"\n" + f + b"\n" + COMMAND + b"\x85\x81", 2),
    "NEWOBJ_EX": (lambda m, f: b"c" + m + b"\n" + f + b"\n" + COMMAND + b"\x85}\x92", 4),
    "STACK_GLOBAL, REDUCE": (lambda m, f: short(m) + short(f) + b"\x93" + COMMAND + b"\x85R", 4),
    "STACK_GLOBAL of memoized texts": (lambda m, f: short(m) + b"\x940" + short(f) + b"\x940h\0h\1\x93)R", 4),
    "STACK_GLOBAL of a memo that was overwritten": (
        lambda m, f: (
            short(m)
            + b"q\x000"
            + short(f)
            + b"q\x010"
            + short(b"torch._utils")
            + b"\x940"
            + short(b"_rebuild_tensor_v2")
            + b"\x940h\0h\1\x93"
            + COMMAND
            + b"\x85R"
        ),
        4,
    ),
    "STACK_GLOBAL of STRINGs": (lambda m, f: b"S'" + m + b"'\nS'" + f + b"'\n\x93)R", 4),
    "named, and dropped": (lambda m, f: b"c" + m + b"\n" + f + b"\n0N", 2),
    "the state of an object": (
        lambda m, f: b"cargparse\nNamespace\n)\x81}" + text("x") + b"c" + m + b"\n" + f + b"\nsb",
        2,
    ),
    "the factory of a defaultdict": (
        lambda m, f: b"ccollections\ndefaultdict\nc" + m + b"\n" + f + b"\n\x85RK\x01K\x02s",
        2,
    ),
    "appended to a call": (lambda m, f: b"c" + m + b"\n" + f + b"\n)RNa", 2),
    "items set in a call": (lambda m, f: b"c" + m + b"\n" + f + b"\n)RNNs", 2),
    "a key": (lambda m, f: b"}c" + m + b"\n" + f + b"\n)RNs", 2),
    "in a set": (lambda m, f: b"\x8f(c" + m + b"\n" + f + b"\n)R\x90", 4),
    "in a frozenset": (lambda m, f: b"(c" + m + b"\n" + f + b"\n)R\x91", 4),
    "behind a GET of a PUT": (lambda m, f: b"c" + m + b"\n" + f + b"\np99\n0g99\n(" + COMMAND + b"tR", 0),
    "the name is a path": (
        lambda m, f: short(m.partition(b".")[0]) + short((m.partition(b".")[2] + b"." + f).strip(b".")) + b"\x93)R",
        4,
    ),
    "getattr of it": (lambda m, f: b"cbuiltins\ngetattr\nc" + m + b"\n__dict__\n" + text(f.decode()) + b"\x86R)R", 2),
}


def short(raw: bytes) -> bytes:
    return b"\x8c" + struct.pack("<B", len(raw)) + raw


def in_python_3(name: str) -> str:
    """What Python 3 looks up where a pickle of protocol 2 says ``name``."""
    module, _, function = name.rpartition(".")
    if (module, function) in NAME_MAPPING:
        return ".".join(NAME_MAPPING[module, function])
    return f"{IMPORT_MAPPING.get(module, module)}.{function}"


def named(name: str, how: str) -> set[str]:
    """What a call of ``name`` names."""
    module = name.rpartition(".")[0]
    return {
        "getattr of it": {"builtins.getattr", f"{module}.__dict__"},
        "the state of an object": {"argparse.Namespace", name},
        "the factory of a defaultdict": {"collections.defaultdict", name},
        "in a frozenset": {"builtins.frozenset", name},
    }.get(how, {name})


def files() -> Files:
    for name in NAMES:
        call = CALLS["GLOBAL, REDUCE"][0](*split(name))
        for container, wrapped in CONTAINERS.items():
            yield inert(f"{container}: {name}", wrapped(call), in_python_3(name))
    for how, (call_of, protocol) in CALLS.items():
        for name in ("os.system", "builtins.eval", "subprocess.Popen", "torch.storage._load_from_bytes"):
            for container, wrapped in CONTAINERS.items():
                data = wrapped(call_of(*split(name)), protocol)
                yield inert(f"{container}: {name}, {how}", data, *named(name, how))
    for name in ("torch.distributed.tensor.DTensor", "torch.distributed._shard.sharded_tensor.api.ShardedTensor"):
        for container, wrapped in CONTAINERS.items():
            yield refused(f"{container}: {name}", wrapped(CALLS["GLOBAL, REDUCE"][0](*split(name))), "sharded-tensor")
