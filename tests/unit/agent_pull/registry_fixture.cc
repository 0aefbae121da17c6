#include "tests/unit/agent_pull/registry_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "common/base/log.h"
#include "common/http/http_client.h"

namespace bunker::agent {
namespace {
constexpr char kPython[] = "/usr/bin/python3";

std::string Script(const std::string& name) {
  return std::string(BUNKER_SOURCE_DIR) + "/tests/support/" + name;
}

// The installed docker-registry, or the one that tests/run has unpacked.
std::string RegistryBinary() {
  const std::string root = BUNKER_SOURCE_DIR;
  std::string path =
      RunProgram({"bash", root + "/deploy/lib/registry-binary", root + "/build/registry"});
  while (!path.empty() && path.back() == '\n') path.pop_back();
  return path;
}

// A line for htpasswd: bcrypt, the only form that the registry takes.
std::string PasswordLine(const std::string& user, const std::string& password) {
  return RunProgram({kPython, "-W", "ignore", "-c",
                     "import crypt, sys; print(sys.argv[1] + ':' + crypt.crypt(sys.argv[2], "
                     "crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))",
                     user, password});
}

http::Client& Http() {
  static http::Client client({.policy = nullptr, .proxy = {}, .user_agent = "test"});
  return client;
}

void WriteText(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
}

std::string ReadText(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}
}  // namespace

TempFolder::TempFolder() {
  std::string pattern = std::filesystem::temp_directory_path().string() + "/bunker-pull-XXXXXX";
  BUNKER_CHECK(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}
TempFolder::~TempFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

Child::Child(const std::vector<std::string>& argv, const std::string& log_path, bool stdout_pipe) {
  int pipe_fds[2] = {-1, -1};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (stdout_pipe) {
    BUNKER_CHECK(::pipe2(pipe_fds, O_CLOEXEC) == 0);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 1);
  } else {
    posix_spawn_file_actions_addopen(&actions, 1, log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                     0600);
  }
  posix_spawn_file_actions_addopen(&actions, 2, log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                   0600);
  std::vector<char*> args;
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);
  BUNKER_CHECK(::posix_spawnp(&pid_, args[0], &actions, nullptr, args.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  if (stdout_pipe) ::close(pipe_fds[1]);
  out_fd_ = pipe_fds[0];
}

Child::~Child() {
  Stop();
}

void Child::Stop() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  if (out_fd_ >= 0) ::close(out_fd_);
  out_fd_ = -1;
}

std::string Child::Rest() {
  std::string rest;
  char buffer[4096];
  for (ssize_t n; (n = ::read(out_fd_, buffer, sizeof buffer)) > 0;)
    rest.append(buffer, static_cast<size_t>(n));
  return rest;
}

int Child::Wait() {
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

std::string Child::FirstLine() {
  std::string line;
  char c = 0;
  while (::read(out_fd_, &c, 1) == 1 && c != '\n') line.push_back(c);
  return line;
}

std::string RunProgram(const std::vector<std::string>& argv) {
  const TempFolder folder;
  Child child(argv, folder / "log", true);
  std::string output = child.Rest();
  if (const int code = child.Wait(); code != 0) {
    Log(Severity::kError, "test.program_failed",
        {{"program", argv[0]}, {"code", code}, {"stderr", ReadText(folder / "log")}});
    std::abort();
  }
  return output;
}

nlohmann::json MakeLayout(const std::string& folder, std::vector<std::string> options) {
  std::vector<std::string> argv = {kPython, Script("oci_layout.py"), folder};
  argv.insert(argv.end(), options.begin(), options.end());
  return nlohmann::json::parse(RunProgram(argv));
}

int FreePort() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  BUNKER_CHECK(::bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0);
  BUNKER_CHECK(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

RealRegistry::RealRegistry(const std::string& user, const std::string& password, bool tls)
    : port_(FreePort()), user_(user), password_(password), tls_(tls) {
  std::string config = "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: " + storage() +
                       "\nhttp:\n  addr: " + host() + "\n";
  if (tls_) {
    MakeCertificate();
    config += "  tls:\n    certificate: " + folder_ / "server.pem" +
              "\n    key: " + folder_ / "server.key" + "\n";
  }
  if (!user_.empty()) {
    WriteText(folder_ / "htpasswd", PasswordLine(user_, password_));
    config += "auth:\n  htpasswd:\n    realm: test\n    path: " + folder_ / "htpasswd" + "\n";
  }
  WriteText(folder_ / "config.yml", config);
  Start();
}

void RealRegistry::MakeCertificate() {
  RunProgram({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
              "-nodes", "-days", "2", "-subj", "/CN=test authority", "-keyout", folder_ / "ca.key",
              "-out", ca_file()});
  RunProgram({"openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
              "-subj", "/CN=registry", "-keyout", folder_ / "server.key", "-out",
              folder_ / "server.csr"});
  WriteText(folder_ / "san", "subjectAltName=IP:127.0.0.1\n");
  RunProgram({"openssl", "x509", "-req", "-in", folder_ / "server.csr", "-CA", ca_file(), "-CAkey",
              folder_ / "ca.key", "-CAcreateserial", "-days", "2", "-extfile", folder_ / "san",
              "-out", folder_ / "server.pem"});
}

void RealRegistry::Start() {
  child_ = std::make_unique<Child>(
      std::vector<std::string>{RegistryBinary(), "serve", folder_ / "config.yml"}, folder_ / "log",
      false);
  http::Request request;
  request.url = "http://" + host() + "/v2/";
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!Http().Do(request).ok()) {  // nothing but a connect tells that it is up
    BUNKER_CHECK(std::chrono::steady_clock::now() < end);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void RealRegistry::Restart() {
  child_->Stop();
  Start();
}

void RealRegistry::Push(const std::string& layout, const std::string& repository_and_tag) {
  std::vector<std::string> argv = {
      "skopeo", "copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false"};
  if (!user_.empty()) argv.push_back("--dest-creds=" + user_ + ":" + password_);
  argv.push_back("oci:" + layout + ":latest");
  argv.push_back("docker://" + host() + "/" + repository_and_tag);
  RunProgram(argv);
}

std::string RealRegistry::Log() const {
  return ReadText(folder_ / "log");
}

FaultyRegistry::FaultyRegistry(const std::string& layout, std::vector<std::string> options) {
  std::vector<std::string> argv = {kPython, Script("faulty_registry.py"), layout};
  argv.insert(argv.end(), options.begin(), options.end());
  child_ = std::make_unique<Child>(argv, "/dev/null", true);
  port_ = child_->FirstLine();
}

void FaultyRegistry::Fault(const nlohmann::json& fault) {
  http::Request request;
  request.method = "POST";
  request.url = url() + "/_fault";
  request.body = fault.dump();
  BUNKER_CHECK(Http().Do(request).ok());
}

void FaultyRegistry::Clear() {
  http::Request request;
  request.method = "POST";
  request.url = url() + "/_clear";
  BUNKER_CHECK(Http().Do(request).ok());
}

nlohmann::json FaultyRegistry::Log() {
  http::Request request;
  request.url = url() + "/_log";
  const auto response = Http().Do(request);
  BUNKER_CHECK(response.ok());
  return nlohmann::json::parse(response->body);
}

int FaultyRegistry::Count(const std::string& part) {
  int count = 0;
  for (const auto& entry : Log())
    count += entry["path"].get<std::string>().find(part) != std::string::npos;
  return count;
}

}  // namespace bunker::agent
