// Internal to common/http: one hop of one request, on one libcurl handle.
#pragma once

#include <curl/curl.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <string>

#include "common/http/http_client.h"

namespace bunker::http {

// A handle with its own connection cache; reused by one request after another.
struct CurlPair {
  CurlPair();
  ~CurlPair();
  CurlPair(const CurlPair&) = delete;
  CurlPair& operator=(const CurlPair&) = delete;
  CURLM* multi;
  CURL* easy;
};

class Transfer {
 public:
  struct Hop {
    const Request* request;
    const ClientOptions* options;
    Url url;
    HopPolicy policy;
    Headers headers;
    bool may_redirect;  // a 3xx with a Location is not the final response
  };

  Transfer(CurlPair& pair, Hop hop) : pair_(pair), hop_(std::move(hop)) {}
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  absl::StatusOr<Response> Run();

 private:
  static size_t OnHeader(char* data, size_t size, size_t count, void* self);
  static size_t OnBody(char* data, size_t size, size_t count, void* self);
  static size_t OnSource(char* room, size_t size, size_t count, void* self);
  static curl_socket_t OnOpenSocket(void* self, curlsocktype purpose, curl_sockaddr* address);
  static int OnConnected(void* self, char* peer, char* own, int peer_port, int own_port);

  // Whether the address filter has a say in where this hop connects to.
  bool IsFiltered() const;
  absl::Status Configure();
  absl::Status SetHeaders();
  CURLcode Drive();
  // Ends the transfer where the stretch that is over brought too little.
  bool TooSlow();
  absl::Status StatusOf(CURLcode code) const;
  bool HeaderLine(std::string_view line);
  bool BodyPiece(std::string_view piece);
  // Called once, when the last header line of the final response has come.
  bool HeadersDone();

  CurlPair& pair_;
  Hop hop_;
  std::string proxy_;
  curl_slist* header_list_ = nullptr;
  char error_[CURL_ERROR_SIZE] = "";
  Response response_;
  size_t header_bytes_ = 0;
  uint64_t body_bytes_ = 0;
  uint64_t sent_bytes_ = 0;  // of the source
  long connect_status_ = 0;  // a proxy's answer to CONNECT
  bool to_sink_ = false;
  bool head_seen_ = false;
  std::chrono::steady_clock::time_point stretch_start_;
  uint64_t stretch_bytes_ = 0;
  absl::Status verdict_;  // what a callback decided
  std::string refused_;   // the address that the filter refused, and why
};

}  // namespace bunker::http
