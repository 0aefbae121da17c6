// What a guest and a resolver may send: names' questions and answers, first bytes of TLS, HTTP.
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/net/dns_message.h"
#include "agent/net/http_gate.h"
#include "agent/net/tls_hello.h"

namespace {

using bunker::agent::HttpGate;

void Check(bool holds) {
  if (!holds) __builtin_trap();
}

void FuzzDns(std::string_view bytes) {
  const auto question = bunker::agent::ParseDnsQuery(bytes);
  if (question.ok()) {
    const std::string answer =
        bunker::agent::BuildDnsAnswer(*question, 0, {{0x01020304, 60}, {0x05060708, 1}});
    Check(answer.size() == 12 + question->raw.size() + 32);
    if (!question->name.empty() && question->type == bunker::agent::kDnsTypeA) {
      const auto reply = bunker::agent::ParseDnsReply(answer, question->id, question->name);
      Check(reply.ok() && reply->addresses.size() == 2);
    }
  }
  const auto reply = bunker::agent::ParseDnsReply(bytes, 0x1234, "a.example");
  Check(!reply.ok() || reply->addresses.size() <= 32);
}

// However the bytes are cut, the same of them pass, and none that were not sent.
void FuzzHttp(std::string_view bytes) {
  std::string whole, pieces;
  HttpGate one([](const std::string& host) { return host == "good.example"; });
  HttpGate two([](const std::string& host) { return host == "good.example"; });
  const bool passed = one.Feed(bytes, &whole).ok();
  bool pieces_passed = true;
  for (size_t at = 0; at < bytes.size() && pieces_passed; ++at)
    pieces_passed = two.Feed(bytes.substr(at, 1), &pieces).ok();
  Check(bytes.substr(0, whole.size()) == whole);
  Check(!passed || (pieces_passed && pieces == whole));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      FuzzDns(bytes);
      break;
    case 1: {
      const auto hello = bunker::agent::ReadTlsHello(bytes);
      Check((hello.result == bunker::agent::Sniffed::kName) != hello.name.empty());
      break;
    }
    default:
      FuzzHttp(bytes);
  }
  return 0;
}
