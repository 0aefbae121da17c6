// What a guest may say of its files, and what a tenant may send as a tar: frames in any order, ends
// of any kind, records of any length, archives however they are cut.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "agent/exec/file_stream.h"
#include "agent/guest/tar_format.h"
#include "common/base/reason.h"
#include "common/base/utf8.h"
#include "controller/api/file_records.h"

namespace {

using bunker::agent::FileStream;
using bunker::guest::v1::FileEnd;
using bunker::guest::v1::FileHead;
using bunker::wire::kMaxDataBytes;
using bunker::wire::kWindowBytes;

void Check(bool holds) {
  if (!holds) __builtin_trap();
}

std::string_view Take(std::string_view* bytes, size_t size) {
  const std::string_view taken = bytes->substr(0, size);
  bytes->remove_prefix(taken.size());
  return taken;
}

uint32_t TakeNumber(std::string_view* bytes) {
  uint32_t number = 0;
  const std::string_view taken = Take(bytes, sizeof(number));
  std::memcpy(&number, taken.data(), taken.size());
  return number;
}

// The credit holds in both directions, whatever comes in whatever order. A breach is the end.
void FuzzStream(std::string_view bytes) {
  static const std::string data(kMaxDataBytes + 1, 'x');
  FileStream stream;
  uint64_t held = 0;
  bool head_seen = false;
  bool committed = false;
  bool kept_the_rules = true;
  while (!bytes.empty() && kept_the_rules) {
    const char op = Take(&bytes, 1)[0];
    const uint32_t number = TakeNumber(&bytes);
    if (op == 'h') {
      FileHead head;
      kept_the_rules = stream.OnHead(Take(&bytes, number % 64), &head).ok();
      Check(!kept_the_rules || !head_seen);
      head_seen = true;
    } else if (op == 'd') {
      const size_t size = number % data.size() + (number % 7 == 0 ? 1 : 0);
      kept_the_rules = stream.OnData(std::string_view(data).substr(0, size)).ok();
      Check(!kept_the_rules || (head_seen && size > 0 && size <= kMaxDataBytes));
      if (kept_the_rules) held += size;
    } else if (op == 'a') {
      const uint64_t taken = std::min<uint64_t>(held, number);
      Check(stream.Ack(number) <= kWindowBytes);
      held -= taken;
    } else if (op == 'c') {
      const uint32_t room = stream.room();
      kept_the_rules = stream.OnCredit(number).ok();
      Check(!kept_the_rules || committed || stream.room() == room + number);
    } else if (op == 's') {
      stream.Spend(std::min(number, stream.room()));
    } else if (op == 'e') {
      stream.Commit();
      committed = true;
    }
    Check(held <= kWindowBytes && stream.room() <= kWindowBytes);
    Check(!committed || stream.room() == 0);
  }
}

// Whatever a guest says of a failure is an error with a reason, and clean text.
void FuzzEnd(std::string_view bytes) {
  FileEnd end;
  if (!end.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  if (end.kind() == FileEnd::DONE) return;
  const absl::Status status = bunker::agent::FileEndToStatus(end);
  const std::string message(status.message());
  Check(!status.ok() && !bunker::ReasonOf(status).empty());
  Check(message.size() < 4096 && bunker::IsUtf8(message));
  for (const char c : message) Check(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
}

void FuzzRecords(std::string_view bytes) {
  const size_t all = bytes.size();
  size_t taken = 0;
  for (;;) {
    const size_t before = bytes.size();
    const std::string_view record = bunker::controller::TakeRecord(&bytes);
    if (record.empty()) break;
    Check(before - bytes.size() == record.size() + 4);
    taken += record.size() + 4;
  }
  Check(taken + bytes.size() == all || taken + bytes.size() + 4 == all);
}

// What a reader makes of an archive that comes in pieces of `piece` bytes.
std::string ReadTar(std::string_view bytes, size_t piece) {
  using bunker::guest::TarEntry;
  using bunker::guest::TarReader;
  TarReader reader([&] { return Take(&bytes, piece); });
  std::string told;
  TarEntry entry;
  TarReader::Result result;
  while ((result = reader.Next(&entry)) == TarReader::Result::kEntry) {
    std::string clean;
    if (bunker::guest::CleanMemberPath(entry.path, &clean)) {
      Check(clean.find('\0') == std::string::npos && ("/" + clean + "/").find("/../") ==
                                                         std::string::npos);
      Check(clean.empty() || (clean.front() != '/' && clean.back() != '/'));
    }
    told += clean + '\n' + entry.link + '\n' + std::to_string(entry.size) + '\n';
    uint64_t size = 0;
    for (std::string_view data = reader.ReadData(); !data.empty(); data = reader.ReadData()) {
      size += data.size();
    }
    Check(size <= entry.size && (size == entry.size || reader.broken()));
  }
  Check((result == TarReader::Result::kBroken) == reader.broken());
  return told + (reader.broken() ? "broken" : "end");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      FuzzStream(bytes);
      break;
    case 1:
      FuzzEnd(bytes);
      break;
    case 2:
      FuzzRecords(bytes);
      break;
    default:
      Check(ReadTar(bytes, bytes.size()) == ReadTar(bytes, 1));
      Check(ReadTar(bytes, 512) == ReadTar(bytes, 13));
  }
  return 0;
}
