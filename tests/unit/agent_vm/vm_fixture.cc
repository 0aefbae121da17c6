#include "tests/unit/agent_vm/vm_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "agent/vm/rw_disk.h"
#include "common/base/files.h"
#include "common/proc/deadline.h"

namespace bunker::agent {
namespace {

namespace fs = std::filesystem;

std::string GuestDir() {
  const char* from_environment = getenv("BUNKER_GUEST_DIR");
  return from_environment != nullptr ? from_environment : BUNKER_GUEST_DIR;
}

// One member of a cpio archive in the "newc" format, or its trailer.
std::string CpioMember(const std::string& name, const std::string& content, unsigned mode) {
  std::string member = absl::StrFormat(
      "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, mode, 0, 0, 1, 0,
      content.size(), 0, 0, 0, 0, name.size() + 1, 0);
  member.append(name).push_back('\0');
  while (member.size() % 4 != 0) member.push_back('\0');
  member.append(content);
  while (member.size() % 4 != 0) member.push_back('\0');
  return member;
}

// The kernel unpacks archives one after the other: the later /init wins.
void WriteInitrd(const std::string& path) {
  absl::StatusOr<std::string> real = ReadFile(GuestDir() + "/initrd", 256 * 1024 * 1024);
  ASSERT_TRUE(real.ok()) << real.status();
  absl::StatusOr<std::string> init = ReadFile(BUNKER_TINY_GUEST, 64 * 1024 * 1024);
  ASSERT_TRUE(init.ok()) << init.status();
  while (real->size() % 4 != 0) real->push_back('\0');
  std::ofstream out(path, std::ios::binary);
  out << *real << CpioMember("init", *init, 0100755) << CpioMember("TRAILER!!!", "", 0);
  out.close();
  ASSERT_TRUE(out.good());
}

}  // namespace

void VmFixture::SetUp() {
  ASSERT_EQ(geteuid(), 0u) << "needs root, as the agent does";
  ASSERT_TRUE(fs::exists(GuestDir() + "/vmlinux"))
      << GuestDir() << "/vmlinux is missing: run deploy/guest-kernel";
  char folder[] = "/tmp/bunker-vm-test.XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  root_ = folder;
  WriteInitrd(root_ + "/initrd");
  ASSERT_TRUE(MakeRwDisk(root_ + "/base", kMinRwDiskMb, 0).ok());
  ASSERT_EQ(chmod((root_ + "/base").c_str(), 0444), 0);
  ASSERT_EQ(chmod((root_ + "/initrd").c_str(), 0444), 0);
}

void VmFixture::TearDown() {
  started_.push_back(journalled_);
  for (const RunningVm& record : started_) {
    absl::StatusOr<VmHandle> vm = driver_.Adopt(record);
    if (vm.ok()) {
      EXPECT_TRUE(driver_.Kill(*vm).ok());
    }
  }
  if (!root_.empty()) fs::remove_all(root_);
}

VmSpec VmFixture::MakeSpec(const std::string& name, uid_t uid) {
  VmSpec spec;
  spec.folder = root_ + "/" + name;
  EXPECT_EQ(mkdir(spec.folder.c_str(), 0700), 0);
  spec.base_disk = root_ + "/base";
  spec.rw_disk = spec.folder + "/rw.ext4";
  const absl::Status made = MakeRwDisk(spec.rw_disk, kMinRwDiskMb, uid);
  EXPECT_TRUE(made.ok()) << made;
  spec.kernel = GuestDir() + "/vmlinux";
  spec.initrd = root_ + "/initrd";
  spec.uid = uid;
  return spec;
}

absl::StatusOr<VmHandle> VmFixture::Start(const VmSpec& spec) {
  return driver_.Start(
      spec,
      [this](const RunningVm& record) {
        journalled_ = record;
        started_.push_back(record);
        return absl::OkStatus();
      },
      cancel_);
}

std::string TinyGuest::ReadLine(absl::Duration timeout) {
  const Deadline deadline(timeout);
  while (true) {
    const size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    pollfd watched{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (poll(&watched, 1, deadline.PollTimeoutMs()) == 0 && deadline.Expired()) return "(timeout)";
    if (watched.revents == 0) continue;
    char chunk[4096];
    const ssize_t count = read(fd_.get(), chunk, sizeof(chunk));
    if (count <= 0) return "(closed)";
    buffer_.append(chunk, static_cast<size_t>(count));
  }
}

void TinyGuest::Send(const std::string& word) {
  const std::string line = word + "\n";
  EXPECT_EQ(send(fd_.get(), line.data(), line.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(line.size()));
}

std::string TinyGuest::Ask(const std::string& word) {
  Send(word);
  return ReadLine();
}

std::string StatusField(pid_t pid, const std::string& field) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind(field + ":", 0) != 0) continue;
    std::string value = line.substr(field.size() + 1);
    while (!value.empty() && (value[0] == '\t' || value[0] == ' ')) value.erase(0, 1);
    while (!value.empty() && (value.back() == '\t' || value.back() == ' ')) value.pop_back();
    return value;
  }
  return "(none)";
}

std::string NamespaceOf(pid_t pid, const std::string& name) {
  std::error_code error;
  return fs::read_symlink(absl::StrCat("/proc/", pid, "/ns/", name), error).string();
}

}  // namespace bunker::agent
