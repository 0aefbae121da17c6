// An HTTP server for tests: each connection is answered by a function of the request's text, byte
// by byte as the test wants it.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace bunker::http {

class ScriptedServer {
 public:
  // Given the whole request (head and body), what goes back. The connection is closed after it.
  using Script = std::function<std::string(const std::string& request)>;

  explicit ScriptedServer(Script script);  // 127.0.0.1, any port
  ScriptedServer(Script script, const std::string& unix_path);
  ~ScriptedServer();
  ScriptedServer(const ScriptedServer&) = delete;
  ScriptedServer& operator=(const ScriptedServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }
  std::vector<std::string> Requests();
  // Leaves connections open after the script's answer, until the server ends.
  void KeepOpen() { keep_open_ = true; }

 private:
  void Serve();
  void Answer(int fd);

  const Script script_;
  int listen_fd_ = -1;
  int port_ = 0;
  std::atomic<bool> keep_open_{false};
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::vector<int> open_;
  std::thread thread_;
};

// A 200 with `body` and its length.
std::string Ok(const std::string& body, const std::string& headers = "");

}  // namespace bunker::http
