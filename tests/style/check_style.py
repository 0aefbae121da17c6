#!/usr/bin/python3
"""House rules that a compiler does not check. Prints one line a finding; exits 1 if there is any.

usage: check_style.py [--warnings] [ROOT]
"""

import ast
import os
import re
import subprocess
import sys

SKIPPED_FOLDERS = {".git", "build", "__pycache__", ".cache", "node_modules"}
SOURCES = (".h", ".cc")
LINES_SOFT, LINES_HARD = 400, 600
FUNCTION_LINES_HARD = 70
TEST_LINES_HARD = 100  # a test's table may be long
COLUMNS = 100

# Folder -> the folders of this repository that it may include. The longest prefix decides.
COMMON = ["common/"]
LAYERS = {
    "common/": COMMON + ["bunker/"],
    "controller/model/": COMMON + ["controller/model/"],
    "controller/policy/": COMMON + ["controller/model/", "controller/policy/"],
    "controller/store/": COMMON + ["controller/model/", "controller/store/"],
    "controller/engine/": COMMON + ["controller/model/", "controller/policy/", "controller/engine/",
                                    "controller/store/"],
    "controller/scan/": COMMON + ["bunker/scan/", "controller/model/", "controller/engine/",
                                  "controller/store/", "controller/scan/"],
    "controller/link/": COMMON + ["bunker/", "google/", "controller/model/", "controller/engine/", "controller/link/"],
    "controller/api/": COMMON + ["bunker/", "google/", "controller/model/", "controller/engine/",
                                 "controller/policy/", "controller/link/", "controller/scan/",
                                 "controller/api/"],
    "controller/rest/": COMMON + ["bunker/", "google/", "controller/api/", "controller/rest/"],
    "controller/ctl/": ["common/http/", "common/base/", "controller/ctl/"],
    "controller/": COMMON + ["bunker/", "google/", "controller/"],
    "agent/guest/": ["common/wire/", "common/base/", "bunker/guest/", "agent/guest/"],
    "agent/cache/": COMMON + ["agent/cache/"],
    "agent/pull/": COMMON + ["agent/pull/"],
    "agent/confined/": COMMON + ["agent/confined/"],
    "agent/bake/": COMMON + ["bunker/bake/", "agent/confined/", "agent/bake/"],
    "agent/scan/": COMMON + ["bunker/scan/", "agent/confined/", "agent/scan/"],
    "agent/vm/": COMMON + ["agent/vm/"],
    "agent/net/": COMMON + ["bunker/agent/", "agent/confined/", "agent/net/"],
    "agent/exec/": COMMON + ["bunker/guest/", "agent/exec/"],
    "agent/journal/": COMMON + ["bunker/agent/", "bunker/link/", "agent/journal/"],
    "agent/link/": COMMON + ["bunker/", "google/", "agent/link/"],
    "agent/": COMMON + ["bunker/", "google/", "agent/"],
}
GRPC_ALLOWED = re.compile(r"^(tests/|controller/(link|api)/|controller/(server|main|admin|daemon)[^/]*$|"
                          r"agent/link/|agent/(main|admin)[^/]*$)")

# (what is banned, where it is allowed all the same, what to do instead)
BANNED = [
    (r"\babsl::Mutex\b", None, "use common/base/mutex.h"),
    (r"\bstd::(recursive_|timed_)mutex\b", None, "use common/base/mutex.h"),
    (r"\b(sleep_for|sleep_until|usleep|nanosleep)\s*\(", r"^(tests/|agent/guest/)", "wait for an event"),
    (r"(?<![\w.>:])(std::|::)?(system|popen)\s*\(", r"^tests/", "use common/proc"),
    (r"(?<![\w.>])(::)?(mount|umount2?)\s*\(", r"^(agent/guest/|agent/vm/|agent/bake/|common/proc/|tests/)",
     "file systems that a guest wrote are never mounted on the host"),
    # The JSON library's own hooks have no other way out; the codec catches them at its edge.
    (r"\bthrow\b(?!\w)", r"^controller/store/row_codec\.cc$", "return absl::Status"),
    (r"\busing namespace\b", None, "name what you use"),
    (r"\bconst_cast\b", r"^(tests/|agent/|common/)", "own what you change"),
    (r"\b(strcpy|strcat|sprintf|gets|tmpnam|mktemp)\s*\(", None, "use std::string, fmt, mkdtemp"),
    (r"\bGTEST_SKIP\b|\bDISABLED_", None, "a test runs or is deleted"),
    (r"\bTODO\b|\bFIXME\b|\bXXX\b", None, "finish it, or say in the documents what is missing"),
]
# Names of the machines this was written on, and of package mirrors, have no place in any file.
FORBIDDEN_TEXT = re.compile(
    r"(?<![\w.])/work/|\b[\w.]*\.debian\.org\b|\bpypi\.org\b|\bnpmjs\.org\b|"
    r"\bproxy\.golang\.org\b|\bcrates\.io\b|\brepo1?\.maven\b")
TEXT_EXEMPT = {"tests/style/check_style.py", "LICENSE"}


def files_below(root):
    for folder, names, files in os.walk(root):
        names[:] = sorted(x for x in names if x not in SKIPPED_FOLDERS)
        for name in sorted(files):
            if name == ".git":
                continue  # a second work tree's pointer to the first
            yield os.path.relpath(os.path.join(folder, name), root)


def without_comments(text):
    """C++ text with comments and string contents blanked; line numbers stay."""
    pattern = re.compile(r'R"(\w*)\((?:.|\n)*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*(?:.|\n)*?\*/')

    def blank(match):
        found = match.group(0)
        if found.startswith("'") and len(found) > 4:
            return found
        return ('""' if found[0] in '"R' else "") + "\n" * found.count("\n")
    return pattern.sub(blank, text)


class Checker:
    def __init__(self, root):
        self.root = root
        self.errors = []
        self.warnings = []
        self.paths = list(files_below(root))

    def error(self, path, line, message):
        self.errors.append(f"{path}:{line}: {message}")

    def read(self, path):
        with open(os.path.join(self.root, path), encoding="utf-8", errors="replace") as source:
            return source.read()

    def run(self):
        for path in self.paths:
            name = os.path.basename(path)
            text = None
            if not path.endswith((".png", ".gz", ".zst", ".tar", ".bin")):
                text = self.read(path)
                self.check_text(path, text)
            if path.endswith(SOURCES):
                self.check_source(path, text)
            elif path.endswith(".proto"):
                self.check_size(path, text, LINES_HARD)
            elif path.endswith(".py") or (text or "").startswith("#!/usr/bin/python3"):
                self.check_python(path, text)
            elif (text or "").startswith("#!/usr/bin/env bash") or name.endswith(".sh"):
                self.check_shell(path, text)
        self.check_listed_sources()
        self.check_readmes()
        self.check_documented_options()

    def check_text(self, path, text):
        if path in TEXT_EXEMPT:
            return
        for number, line in enumerate(text.splitlines(), 1):
            found = FORBIDDEN_TEXT.search(line)
            if found and not path.startswith("tests/e2e/seeds/"):
                self.error(path, number, f"names a machine path or a mirror host: {found.group(0)}")

    def check_size(self, path, text, hard):
        count = text.count("\n")
        if count > hard:
            self.error(path, 1, f"{count} lines, at most {hard}: one job a file")
        elif count > LINES_SOFT:
            self.warnings.append(f"{path}: {count} lines, aim for {LINES_SOFT}")

    def check_source(self, path, text):
        self.check_size(path, text, LINES_HARD)
        code = without_comments(text)
        if path.endswith(".h") and "#pragma once" not in text:
            self.error(path, 1, "a header starts with #pragma once")
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > COLUMNS:
                self.error(path, number, f"{len(line)} columns, at most {COLUMNS}")
            self.check_include(path, number, line)
        for number, line in enumerate(code.splitlines(), 1):
            for pattern, allowed, instead in BANNED:
                if re.search(pattern, line) and not (allowed and re.search(allowed, path)):
                    self.error(path, number, f"banned: {line.strip()[:60]}: {instead}")
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"//.*\b(TODO|FIXME|XXX)\b", line):
                self.error(path, number, "finish it, or say in the documents what is missing")
        self.check_functions(path, code)

    def check_include(self, path, number, line):
        found = re.match(r'\s*#include\s+([<"])([^">]+)[">]', line)
        if not found:
            return
        style, target = found.groups()
        if target.startswith("grpcpp/") and not GRPC_ALLOWED.match(path):
            self.error(path, number, "gRPC belongs to the edges: server, link, api, agent/link, tests")
        if target == "nlohmann/json.hpp" and path.endswith(".h") and not path.startswith("tests/"):
            self.error(path, number, "nlohmann/json.hpp in .cc files only (json_fwd.hpp in headers)")
        if style != '"' or path.startswith("tests/"):
            return
        if re.match(r"(absl|google/protobuf|grpc|grpcpp|CLI|nlohmann|toml|fmt|gtest|gmock|ext2fs)", target):
            return
        layer = max((x for x in LAYERS if path.startswith(x)), key=len, default=None)
        if "/" not in target:
            self.error(path, number, f'"{target}": includes are written from the root')
        elif layer and not any(target.startswith(x) for x in LAYERS[layer]):
            self.error(path, number, f"{layer} may not include {target}")

    def check_functions(self, path, code):
        """Functions start and end at column 0 in this house's style (namespaces do not indent)."""
        start, text = None, ""
        for number, line in enumerate(code.splitlines(), 1):
            if start is None:
                if not re.match(r"[A-Za-z_~]", line) or line.startswith("namespace"):
                    continue
                start, text = number, ""
            text += line + "\n"
            closed = text.count("{") == text.count("}") and text.count("(") == text.count(")")
            if not closed or not re.search(r"[;}]\s*$", line):
                continue
            length = number - start + 1
            data = re.match(r"(template\b[^\n]*\n)?\s*(class|struct|enum|union|extern|INSTANTIATE_)", text)
            most = TEST_LINES_HARD if path.startswith("tests/") else FUNCTION_LINES_HARD
            if length > most and not data and line.rstrip() == "}":
                self.error(path, start, f"function of {length} lines, at most {most}")
            start = None

    def check_python(self, path, text):
        self.check_size(path, text, LINES_HARD)
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            self.error(path, error.lineno or 1, f"Python does not parse it: {error.msg}")
            return
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_HARD:
                    self.error(path, node.lineno, f"function of {length} lines, at most {FUNCTION_LINES_HARD}")

    def check_shell(self, path, text):
        self.check_size(path, text, LINES_HARD)
        if not path.endswith(".sh") and "set -euo pipefail" not in text and text.count("\n") > 6:
            self.error(path, 1, "a script starts with set -euo pipefail")
        done = subprocess.run(["bash", "-n", os.path.join(self.root, path)],
                              stderr=subprocess.PIPE, check=False)
        if done.returncode != 0:
            self.error(path, 1, "bash does not parse it: " + done.stderr.decode()[:200])

    def check_listed_sources(self):
        """Every source is named by the CMakeLists.txt (or .cmake) of its own or a parent folder."""
        listings = {x: self.read(x) for x in self.paths if x.endswith(("CMakeLists.txt", ".cmake"))}
        for path in self.paths:
            if not path.endswith(".cc"):
                continue
            named = False
            for listing, text in listings.items():
                folder = os.path.dirname(listing)
                inside = not folder or path.startswith(folder + "/")
                relative = os.path.relpath(path, folder or ".")
                named = named or (inside and re.search(r"(?<![\w/.-])" + re.escape(relative) + r"(?![\w.])", text))
                named = named or re.search(r"\$\{(CMAKE|PROJECT)_SOURCE_DIR\}/" + re.escape(path), text)
            if not named:
                self.error(path, 1, "no CMakeLists.txt names it: a dead file")

    def check_readmes(self):
        for folder in ("proto", "common", "controller", "agent", "deploy", "tests"):
            readme = f"{folder}/README.md"
            if readme not in self.paths:
                self.error(readme, 1, "missing: what is in this folder, and what it may use")
                continue
            text = self.read(readme)
            below = {x.split("/")[1] for x in self.paths if x.startswith(folder + "/") and x.count("/") > 1}
            for name in sorted(below):
                if not re.search(r"\b" + re.escape(name) + r"\b", text):
                    self.error(readme, 1, f"does not say what {folder}/{name} is")

    def check_documented_options(self):
        """Every option that a daemon reads is explained in its example file."""
        for daemon in ("agent", "controller"):
            example = f"deploy/config/{daemon}.toml"
            sources = [x for x in self.paths if re.match(rf"{daemon}/config[^/]*\.cc$", x)]
            if not sources:
                continue
            if example not in self.paths:
                self.error(example, 1, "missing: every option explained")
                continue
            text = self.read(example)
            for source in sources:
                for key in re.findall(r'\b(?:Read|Table|Tables)\(\s*"([a-z0-9_]+)"', self.read(source)):
                    if not re.search(rf"^\s*#?\s*(\[+)?([a-z_]+\.)?{key}\b", text, re.M):
                        self.error(example, 1, f"does not explain `{key}` of {source}")


def main():
    arguments = [x for x in sys.argv[1:] if not x.startswith("--")]
    root = arguments[0] if arguments else os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
    checker = Checker(os.path.normpath(root))
    checker.run()
    if "--warnings" in sys.argv:
        print("\n".join(checker.warnings))
    for finding in checker.errors:
        print(finding)
    print(f"style: {len(checker.paths)} files, {len(checker.errors)} findings, "
          f"{len(checker.warnings)} files over the soft cap")
    return 1 if checker.errors else 0


if __name__ == "__main__":
    sys.exit(main())
