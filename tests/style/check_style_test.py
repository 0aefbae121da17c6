#!/usr/bin/python3
"""Plants one violation of each rule in a scratch tree and demands that check_style finds it."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check_style  # noqa: E402


class CheckStyleTest(unittest.TestCase):
    def findings(self, files):
        with tempfile.TemporaryDirectory() as root:
            for path, text in files.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)) or root, exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as out:
                    out.write(text)
            checker = check_style.Checker(root)
            checker.run()
            return "\n".join(checker.errors)

    def assert_found(self, path, text, message):
        self.assertIn(message, self.findings({path: text}))

    def test_layers(self):
        self.assert_found("common/base/a.cc", '#include "agent/vm/vmm.h"\n', "may not include")
        self.assert_found("agent/pull/a.cc", '#include "agent/bake/x.h"\n', "may not include")
        self.assert_found("controller/engine/a.cc", '#include "controller/rest/x.h"\n', "may not include")
        self.assert_found("controller/ctl/a.cc", '#include "bunker/v1/image.pb.h"\n', "may not include")
        self.assert_found("controller/engine/a.cc", "#include <grpcpp/grpcpp.h>\n", "belongs to the edges")

    def test_sizes(self):
        self.assert_found("common/a.cc", "int x;\n" * 601, "at most 600")
        body = "void F() {\n" + "  G();\n" * 70 + "}\n"
        self.assert_found("common/a.cc", body, "function of 72 lines")
        self.assert_found("common/a.cc", "int x; //" + "y" * 100 + "\n", "columns")
        self.assert_found("tests/a.py", "def f():\n" + "    x = 1\n" * 71, "function of 72 lines")

    def test_a_long_class_is_no_function(self):
        body = "#pragma once\nclass A {\n" + "  int x();\n" * 80 + "};\n"
        self.assertNotIn("function of", self.findings({"common/a.h": body}))

    def test_banned(self):
        for line in ("absl::Mutex m;", "std::this_thread::sleep_for(x);", 'system("x");', "mount(a, b);",
                     "throw 1;", "using namespace std;"):
            self.assert_found("common/a.cc", "void F() {\n  " + line + "\n}\n", "banned")
        self.assertNotIn("banned", self.findings({"common/a.cc": '// system("x")\nconst char* x = "throw";\n'}))

    def test_texts(self):
        self.assert_found("README.md", "see " + "/work" + "/main\n", "machine path")
        self.assert_found("deploy/x.sh", "curl http://deb." + "debian.org\n", "mirror host")

    def test_listing(self):
        self.assert_found("agent/vm/a.cc", "int x;\n", "a dead file")
        self.assertNotIn("dead file", self.findings({"agent/vm/a.cc": "", "agent/vm/CMakeLists.txt": "SRCS a.cc)"}))

    def test_readme_and_options(self):
        self.assert_found("agent/vm/a.h", "#pragma once\n", "agent/README.md:1: missing")
        found = self.findings({"agent/config.cc": 'r.Read("quota_x", &v);', "deploy/config/agent.toml": "# y = 1\n"})
        self.assertIn("does not explain `quota_x`", found)

    def test_scripts(self):
        self.assert_found("deploy/x", "#!/usr/bin/env bash\nset -euo pipefail\nif then\n", "bash does not parse")


if __name__ == "__main__":
    unittest.main()
