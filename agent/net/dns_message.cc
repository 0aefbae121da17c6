#include "agent/net/dns_message.h"

#include <map>
#include <set>

#include "agent/net/name_set.h"
#include "common/base/status_macros.h"

namespace bunker::agent {
namespace {

constexpr size_t kHeaderBytes = 12;
constexpr size_t kMaxAddresses = 32;
constexpr int kMaxRecords = 128;
constexpr int kMaxAliases = 16;
constexpr int kMaxJumps = 64;
constexpr uint16_t kTypeCname = 5;
constexpr uint16_t kClassIn = 1;

absl::Status Damaged() {
  return absl::InvalidArgumentError("a damaged DNS message");
}

// Reads forward; every step says whether there was enough.
class Reader {
 public:
  explicit Reader(std::string_view bytes, size_t at = 0) : bytes_(bytes), at_(at) {}

  bool U16(uint16_t* value) {
    if (bytes_.size() - at_ < 2) return false;
    *value = static_cast<uint16_t>(Byte(at_) << 8 | Byte(at_ + 1));
    at_ += 2;
    return true;
  }
  bool U32(uint32_t* value) {
    uint16_t high = 0, low = 0;
    if (!U16(&high) || !U16(&low)) return false;
    *value = uint32_t{high} << 16 | low;
    return true;
  }
  bool Skip(size_t count) {
    if (bytes_.size() - at_ < count) return false;
    at_ += count;
    return true;
  }
  // A name, its labels joined by dots; pointers only lead backwards, and only so many.
  bool Name(std::string* name, bool pointers) {
    name->clear();
    size_t at = at_;
    size_t end = 0;  // behind the name where it stands
    for (int jumps = 0;;) {
      if (at >= bytes_.size()) return false;
      const size_t length = Byte(at);
      if (length == 0) {
        at_ = end != 0 ? end : at + 1;
        return true;
      }
      if ((length & 0xc0) == 0xc0) {
        if (!pointers || at + 1 >= bytes_.size() || ++jumps > kMaxJumps) return false;
        const size_t target = (length & 0x3f) << 8 | Byte(at + 1);
        if (target >= at) return false;
        if (end == 0) end = at + 2;
        at = target;
        continue;
      }
      if (length > 63 || bytes_.size() - at - 1 < length || name->size() > 255) return false;
      const std::string_view label = bytes_.substr(at + 1, length);
      // A dot inside a label would make two names look like one.
      if (label.find('.') != std::string_view::npos) return false;
      if (!name->empty()) name->push_back('.');
      name->append(label);
      at += length + 1;
    }
  }
  size_t at() const { return at_; }

 private:
  uint32_t Byte(size_t at) const { return static_cast<unsigned char>(bytes_[at]); }

  std::string_view bytes_;
  size_t at_;
};

struct Header {
  uint16_t id = 0, flags = 0, questions = 0, answers = 0, authorities = 0, additional = 0;
};

bool ReadHeader(Reader* in, Header* header) {
  return in->U16(&header->id) && in->U16(&header->flags) && in->U16(&header->questions) &&
         in->U16(&header->answers) && in->U16(&header->authorities) && in->U16(&header->additional);
}

void PutU16(uint32_t value, std::string* out) {
  out->push_back(static_cast<char>(value >> 8 & 255));
  out->push_back(static_cast<char>(value & 255));
}

void PutU32(uint32_t value, std::string* out) {
  PutU16(value >> 16, out);
  PutU16(value & 0xffff, out);
}

// One record of an answer; only those that matter are kept.
struct Records {
  std::map<std::string, std::pair<std::string, uint32_t>> aliases;  // name -> {target, ttl}
  std::multimap<std::string, DnsAddress> addresses;
};

bool ReadRecord(std::string_view bytes, Reader* in, Records* records) {
  std::string owner;
  uint16_t type = 0, klass = 0, length = 0;
  uint32_t ttl = 0;
  if (!in->Name(&owner, true) || !in->U16(&type) || !in->U16(&klass) || !in->U32(&ttl) ||
      !in->U16(&length))
    return false;
  const size_t data = in->at();
  if (!in->Skip(length)) return false;
  owner = CanonicalName(owner);
  if (klass != kClassIn || owner.empty()) return true;
  if (ttl > 0x7fffffff) ttl = 0;  // RFC 2181: as if it were zero
  if (type == kDnsTypeA && length == 4) {
    Reader value(bytes, data);
    DnsAddress address;
    if (!value.U32(&address.address)) return false;
    address.ttl_s = ttl;
    records->addresses.emplace(owner, address);
  } else if (type == kTypeCname) {
    Reader value(bytes, data);
    std::string target;
    if (!value.Name(&target, true)) return false;
    records->aliases.emplace(owner, std::make_pair(CanonicalName(target), ttl));
  }
  return true;
}

}  // namespace

absl::StatusOr<DnsQuestion> ParseDnsQuery(std::string_view bytes) {
  if (bytes.size() > kMaxDnsBytes) return Damaged();
  Reader in(bytes);
  Header header;
  if (!ReadHeader(&in, &header)) return Damaged();
  const bool is_response = (header.flags & 0x8000) != 0;
  const int opcode = header.flags >> 11 & 15;
  if (is_response || opcode != 0 || header.questions != 1) return Damaged();
  DnsQuestion question;
  question.id = header.id;
  question.recursion_desired = (header.flags & 0x0100) != 0;
  std::string name;
  uint16_t klass = 0;
  if (!in.Name(&name, false) || !in.U16(&question.type) || !in.U16(&klass)) return Damaged();
  if (klass != kClassIn) return Damaged();
  question.name = CanonicalName(name);
  question.raw = std::string(bytes.substr(kHeaderBytes, in.at() - kHeaderBytes));
  return question;
}

std::string BuildDnsAnswer(const DnsQuestion& question, int rcode,
                           const std::vector<DnsAddress>& addresses) {
  std::string out;
  PutU16(question.id, &out);
  // An answer, recursion available, and what was asked of it.
  PutU16(0x8080u | (question.recursion_desired ? 0x0100u : 0u) | static_cast<uint32_t>(rcode),
         &out);
  PutU16(1, &out);
  PutU16(static_cast<uint32_t>(addresses.size()), &out);
  PutU32(0, &out);
  out += question.raw;
  for (const DnsAddress& address : addresses) {
    PutU16(0xc000u | kHeaderBytes, &out);  // the question's name
    PutU16(kDnsTypeA, &out);
    PutU16(kClassIn, &out);
    PutU32(address.ttl_s, &out);
    PutU16(4, &out);
    PutU32(address.address, &out);
  }
  return out;
}

std::string BuildDnsQuery(uint16_t id, std::string_view name) {
  std::string out;
  PutU16(id, &out);
  PutU16(0x0100, &out);
  PutU16(1, &out);
  PutU16(0, &out);
  PutU32(0, &out);
  while (!name.empty()) {
    const size_t dot = name.find('.');
    const std::string_view label = name.substr(0, dot);
    out.push_back(static_cast<char>(label.size()));
    out.append(label);
    name.remove_prefix(dot == std::string_view::npos ? name.size() : dot + 1);
  }
  out.push_back('\0');
  PutU16(kDnsTypeA, &out);
  PutU16(kClassIn, &out);
  return out;
}

absl::StatusOr<DnsReply> ParseDnsReply(std::string_view bytes, uint16_t id, std::string_view name) {
  Reader in(bytes);
  Header header;
  if (bytes.size() > kMaxDnsBytes || !ReadHeader(&in, &header)) return Damaged();
  if (header.id != id || (header.flags & 0x8000) == 0 || header.questions != 1) return Damaged();
  std::string asked;
  uint16_t type = 0, klass = 0;
  if (!in.Name(&asked, false) || !in.U16(&type) || !in.U16(&klass)) return Damaged();
  if (CanonicalName(asked) != name || type != kDnsTypeA || klass != kClassIn) return Damaged();
  DnsReply reply;
  reply.rcode = header.flags & 15;
  Records records;
  // A truncated answer ends in the middle: what came whole counts.
  for (int i = 0; i < header.answers && i < kMaxRecords; ++i) {
    if (!ReadRecord(bytes, &in, &records)) break;
  }
  std::string owner(name);
  uint32_t ttl = 0x7fffffff;
  for (int aliases = 0; aliases <= kMaxAliases; ++aliases) {
    const auto [first, last] = records.addresses.equal_range(owner);
    for (auto it = first; it != last && reply.addresses.size() < kMaxAddresses; ++it)
      reply.addresses.push_back({it->second.address, std::min(ttl, it->second.ttl_s)});
    const auto alias = records.aliases.find(owner);
    if (!reply.addresses.empty() || alias == records.aliases.end()) break;
    owner = alias->second.first;
    ttl = std::min(ttl, alias->second.second);
  }
  return reply;
}

}  // namespace bunker::agent
