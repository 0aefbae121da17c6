// From a request to what is run.
#include "agent/guest/command.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "agent/guest/devices.h"
#include "agent/guest/exec_session.h"
#include "agent/guest/setup.h"

namespace bunker::guest {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using v1::ExecError;

const UserDb& Users() {
  static const UserDb* const db = new UserDb(UserDb::Parse(
      "root:x:0:0::/root:/bin/sh\napp:x:500:500::/app:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n",
      "app:x:500:\n"));
  return *db;
}

v1::ExecStart Start(const std::string& shell = "true") {
  v1::ExecStart start;
  start.set_shell(shell);
  return start;
}

TEST(Command, ExactlyOneOfArgvAndShell) {
  Command command;
  v1::ExecStart start = Start("echo 'a b'");
  start.set_allow_root(true);
  ASSERT_TRUE(PrepareCommand(start, {}, Users(), &command).ok());
  EXPECT_THAT(command.argv, ElementsAre("/bin/sh", "-c", "echo 'a b'"));
  start.add_argv("ls");
  EXPECT_EQ(PrepareCommand(start, {}, Users(), &command).kind, ExecError::INVALID);
  start.clear_shell();
  ASSERT_TRUE(PrepareCommand(start, {}, Users(), &command).ok());
  EXPECT_THAT(command.argv, ElementsAre("ls"));
  start.clear_argv();
  EXPECT_EQ(PrepareCommand(start, {}, Users(), &command).kind, ExecError::INVALID);
  start.add_argv("");
  EXPECT_EQ(PrepareCommand(start, {}, Users(), &command).kind, ExecError::INVALID);
  start.set_argv(0, std::string("a\0b", 3));
  EXPECT_EQ(PrepareCommand(start, {}, Users(), &command).kind, ExecError::INVALID);
}

TEST(Command, RootOnlyWhereAllowed) {
  Command command;
  for (const char* user : {"", "0", "root", "0:500", "00"}) {
    v1::ExecStart start = Start();
    start.set_user(user);
    EXPECT_EQ(PrepareCommand(start, {}, Users(), &command).kind, ExecError::ROOT_DENIED) << user;
    start.set_allow_root(true);
    EXPECT_TRUE(PrepareCommand(start, {}, Users(), &command).ok()) << user;
    EXPECT_FALSE(command.no_new_privileges);
  }
}

TEST(Command, DefaultTo1000OnlyForADefaultOfRoot) {
  Command command;
  v1::ExecStart start = Start();
  start.set_default_to_1000(true);
  ASSERT_TRUE(PrepareCommand(start, {}, Users(), &command).ok());
  EXPECT_EQ(command.identity.uid, 1000u);
  EXPECT_EQ(command.identity.home, "/home/u");
  EXPECT_TRUE(command.no_new_privileges);
  Defaults defaults;
  defaults.user = "app";
  ASSERT_TRUE(PrepareCommand(start, defaults, Users(), &command).ok());
  EXPECT_EQ(command.identity.uid, 500u);
  start.set_user("0");
  EXPECT_EQ(PrepareCommand(start, defaults, Users(), &command).kind, ExecError::ROOT_DENIED);
}

TEST(Command, EnvironmentInOrder) {
  Command command;
  Defaults defaults;
  defaults.env = {{"A", "image"}, {"B", "image"}, {"HOME", "/image"}};
  defaults.hostname = "h";
  v1::ExecStart start = Start();
  start.set_user("app");
  (*start.mutable_env())["B"] = "exec=1";
  ASSERT_TRUE(PrepareCommand(start, defaults, Users(), &command).ok());
  EXPECT_THAT(command.env, ElementsAre("A=image", "B=exec=1", "HOME=/image", "HOSTNAME=h",
                                       std::string("PATH=") + kDefaultPath));
  (*start.mutable_env())["PATH"] = "/x";
  ASSERT_TRUE(PrepareCommand(start, defaults, Users(), &command).ok());
  EXPECT_EQ(command.path, "/x");
  (*start.mutable_env())["X=Y"] = "1";
  EXPECT_EQ(PrepareCommand(start, defaults, Users(), &command).kind, ExecError::INVALID);
}

TEST(Command, WorkingFolder) {
  Command command;
  Defaults defaults;
  v1::ExecStart start = Start();
  start.set_user("app");
  ASSERT_TRUE(PrepareCommand(start, defaults, Users(), &command).ok());
  EXPECT_EQ(command.cwd, "/");
  defaults.cwd = "/srv";
  ASSERT_TRUE(PrepareCommand(start, defaults, Users(), &command).ok());
  EXPECT_EQ(command.cwd, "/srv");
  start.set_cwd("relative");
  EXPECT_EQ(PrepareCommand(start, defaults, Users(), &command).kind, ExecError::INVALID);
}

TEST(Signals, HaveNames) {
  EXPECT_EQ(SignalName(9), "SIGKILL");
  EXPECT_EQ(SignalName(15), "SIGTERM");
  EXPECT_EQ(SignalName(64), "SIG64");
}

class EtcTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/bunker-etc-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override { ASSERT_EQ(std::system(("rm -r '" + folder_ + "'").c_str()), 0); }
  std::string Read(const std::string& name) {
    std::ifstream file(folder_ + "/" + name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
  }
  std::string folder_;
};

TEST_F(EtcTest, Uid1000IsAddedWhereMissing) {
  Write("passwd", "root:x:0:0::/root:/bin/sh\nbunker:x:5:5::/:/bin/sh");
  // Giving the home away takes root; the entries come first and don't.
  EXPECT_EQ(EnsureUser1000(folder_, folder_ + "/home").ok(), getuid() == 0 || getuid() == 1000);
  EXPECT_EQ(Read("passwd"),
            "root:x:0:0::/root:/bin/sh\nbunker:x:5:5::/:/bin/sh\nbunker1000:x:1000:"
            "1000::" +
                folder_ + "/home/bunker1000:/bin/sh\n");
  EXPECT_EQ(Read("group"), "bunker:x:1000:\n");
  struct stat info {};
  ASSERT_EQ(stat((folder_ + "/home/bunker1000").c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, getuid() == 0 ? 1000u : getuid());
  const std::string before = Read("passwd");
  ASSERT_TRUE(EnsureUser1000(folder_, folder_ + "/home").ok());
  EXPECT_EQ(Read("passwd"), before) << "once is enough";
}

TEST_F(EtcTest, FilesOfTheImageStay) {
  Write("hosts", "mine\n");
  Write("empty", "");
  ASSERT_EQ(symlink("/nowhere", (folder_ + "/resolv.conf").c_str()), 0);
  EXPECT_TRUE(EnsureEtcFile(folder_, "hosts", "ours").ok());
  EXPECT_TRUE(EnsureEtcFile(folder_, "empty", "ours").ok());
  EXPECT_TRUE(EnsureEtcFile(folder_, "missing", "ours").ok());
  EXPECT_TRUE(EnsureEtcFile(folder_, "resolv.conf", "ours").ok());
  EXPECT_EQ(Read("hosts"), "mine\n");
  EXPECT_EQ(Read("empty"), "ours");
  EXPECT_EQ(Read("missing"), "ours");
}

TEST_F(EtcTest, DevicesAreFoundByWhatTheySay) {
  for (const char* disk : {"vda", "vdb"}) {
    ASSERT_EQ(mkdir((folder_ + "/" + disk).c_str(), 0755), 0);
  }
  Write("vda/serial", "rw");  // sysfs gives a virtio disk's serial without a newline
  Write("vdb/serial", "base\n");
  EXPECT_EQ(FindBySysfs(folder_, "serial", "base"), "vdb");
  EXPECT_EQ(FindBySysfs(folder_, "serial", "rw"), "vda");
  EXPECT_EQ(FindBySysfs(folder_, "serial", "r"), "");
  EXPECT_EQ(FindBySysfs(folder_ + "/none", "serial", "rw"), "");
}

}  // namespace
}  // namespace bunker::guest
