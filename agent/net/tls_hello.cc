#include "agent/net/tls_hello.h"

#include <cstddef>
#include <cstdint>

#include "agent/net/name_set.h"

namespace bunker::agent {
namespace {

constexpr size_t kMaxHelloBytes = 16 * 1024;
constexpr uint8_t kHandshakeRecord = 0x16;
constexpr uint8_t kClientHello = 1;
constexpr uint32_t kServerNameExtension = 0;

// Takes from the front; false where there is not enough.
bool TakeNumber(std::string_view* in, int bytes, uint32_t* value) {
  if (in->size() < static_cast<size_t>(bytes)) return false;
  *value = 0;
  for (int i = 0; i < bytes; ++i)
    *value = *value << 8 | static_cast<unsigned char>((*in)[static_cast<size_t>(i)]);
  in->remove_prefix(static_cast<size_t>(bytes));
  return true;
}

// What a length of `bytes` bytes announces.
bool TakeBlock(std::string_view* in, int bytes, std::string_view* block) {
  uint32_t length = 0;
  if (!TakeNumber(in, bytes, &length) || in->size() < length) return false;
  *block = in->substr(0, length);
  in->remove_prefix(length);
  return true;
}

// The handshake message, put together from as many records as it takes.
Sniffed JoinRecords(std::string_view in, std::string* message) {
  while (!in.empty()) {
    uint32_t type = 0, version = 0, length = 0;
    if (static_cast<unsigned char>(in[0]) != kHandshakeRecord) return Sniffed::kRefused;
    if (!TakeNumber(&in, 1, &type) || !TakeNumber(&in, 2, &version)) return Sniffed::kMore;
    if (version >> 8 != 3) return Sniffed::kRefused;
    if (!TakeNumber(&in, 2, &length)) return Sniffed::kMore;
    if (length == 0 || length > kMaxHelloBytes) return Sniffed::kRefused;
    const size_t have = in.size() < length ? in.size() : length;
    message->append(in.substr(0, have));
    in.remove_prefix(have);
    if (message->size() < 4) continue;
    if (static_cast<unsigned char>((*message)[0]) != kClientHello) return Sniffed::kRefused;
    std::string_view head = *message;
    uint32_t body = 0;
    head.remove_prefix(1);
    TakeNumber(&head, 3, &body);
    if (body > kMaxHelloBytes) return Sniffed::kRefused;
    if (message->size() >= body + 4) {
      message->resize(body + 4);
      return Sniffed::kName;
    }
  }
  return Sniffed::kMore;
}

// RFC 6066: a list; ours must hold one host_name and nothing else.
std::string ReadServerName(std::string_view extension) {
  std::string_view list, name;
  uint32_t type = 0;
  if (!TakeBlock(&extension, 2, &list) || !extension.empty()) return "";
  if (!TakeNumber(&list, 1, &type) || type != 0 || !TakeBlock(&list, 2, &name) || !list.empty())
    return "";
  return CanonicalName(name);
}

std::string FindServerName(std::string_view message) {
  uint32_t number = 0;
  std::string_view block, extensions, extension;
  message.remove_prefix(4);
  if (!TakeNumber(&message, 2, &number) || message.size() < 32) return "";
  message.remove_prefix(32);
  if (!TakeBlock(&message, 1, &block) || !TakeBlock(&message, 2, &block) ||
      !TakeBlock(&message, 1, &block) || !TakeBlock(&message, 2, &extensions) || !message.empty())
    return "";
  std::string found;
  while (!extensions.empty()) {
    if (!TakeNumber(&extensions, 2, &number) || !TakeBlock(&extensions, 2, &extension)) return "";
    if (number != kServerNameExtension) continue;
    if (!found.empty()) return "";
    found = ReadServerName(extension);
    if (found.empty()) return "";
  }
  return found;
}

}  // namespace

TlsHello ReadTlsHello(std::string_view bytes) {
  TlsHello hello;
  std::string message;
  hello.result = JoinRecords(bytes, &message);
  if (hello.result == Sniffed::kMore && bytes.size() > kMaxHelloBytes)
    hello.result = Sniffed::kRefused;
  if (hello.result != Sniffed::kName) return hello;
  hello.name = FindServerName(message);
  if (hello.name.empty()) hello.result = Sniffed::kRefused;
  return hello;
}

}  // namespace bunker::agent
