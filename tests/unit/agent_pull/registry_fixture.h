// Servers and images for the tests of pulling: children on loopback, ended by their pid.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace bunker::agent {

// A private temporary folder, removed with all that is in it.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// A child process; ended and reaped by the destructor.
class Child {
 public:
  // `stdout_pipe`: its first line can be read with FirstLine().
  Child(const std::vector<std::string>& argv, const std::string& log_path, bool stdout_pipe);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  std::string FirstLine();
  std::string Rest();  // of what it prints, until it closes its output
  int Wait();          // its exit code
  void Stop();

 private:
  pid_t pid_ = -1;
  int out_fd_ = -1;
};

// Runs a program to its end; its standard output. Fails the test where it exits with an error.
std::string RunProgram(const std::vector<std::string>& argv);

// tests/support/oci_layout.py: what it printed.
nlohmann::json MakeLayout(const std::string& folder, std::vector<std::string> options);

// Debian's docker-registry with its own configuration, storage and port.
class RealRegistry {
 public:
  // With a user name: basic authentication by htpasswd. With `tls`: a certificate for 127.0.0.1
  // by an authority of its own.
  explicit RealRegistry(const std::string& user = "", const std::string& password = "",
                        bool tls = false);
  std::string ca_file() const { return folder_ / "ca.pem"; }
  std::string host() const { return "127.0.0.1:" + std::to_string(port_); }
  std::string storage() const { return folder_ / "storage"; }
  // Copies an OCI layout to `repository:tag` with skopeo.
  void Push(const std::string& layout, const std::string& repository_and_tag);
  void Restart();
  std::string Log() const;

 private:
  void Start();
  void MakeCertificate();
  TempFolder folder_;
  int port_ = 0;
  std::string user_;
  std::string password_;
  bool tls_ = false;
  std::unique_ptr<Child> child_;
};

// tests/support/faulty_registry.py.
class FaultyRegistry {
 public:
  explicit FaultyRegistry(const std::string& layout, std::vector<std::string> options = {});
  std::string host() const { return "127.0.0.1:" + port_; }
  std::string url() const { return "http://" + host(); }
  void Fault(const nlohmann::json& fault);
  void Clear();
  nlohmann::json Log();
  // Requests whose path holds `part`.
  int Count(const std::string& part);

 private:
  std::unique_ptr<Child> child_;
  std::string port_;
};

// A port of loopback that was free a moment ago.
int FreePort();

}  // namespace bunker::agent
