// The tar format as folders travel in it: ustar, with pax records where ustar has no room. Read are
// also GNU's long names and numbers in base 256. What is no file, folder or link is refused.
//
// Pure. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace bunker::guest {

struct TarEntry {
  enum class Type { kFile, kFolder, kSymlink, kHardLink };
  Type type = Type::kFile;
  std::string path;  // as the archive has it
  std::string link;  // target of a link
  uint64_t size = 0;
  uint32_t mode = 0644;
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t modified_s = 0;
};

// Everything that precedes the entry's data. The data is padded to 512 bytes: TarPadding().
std::string TarHeader(const TarEntry& entry);
std::string TarPadding(uint64_t size);
std::string TarEnd();  // two empty blocks

class TarReader {
 public:
  // Gives the next bytes of the archive, at least one; empty: it ends. What is given stays valid
  // until the next call.
  using Source = std::function<std::string_view()>;
  explicit TarReader(Source source) : source_(std::move(source)) {}

  enum class Result { kEntry, kEnd, kBroken };
  // The next entry; what was left of the data of the one before is skipped. kBroken: error().
  Result Next(TarEntry* entry);
  // The next piece of the entry's data; empty at its end, or where the archive breaks off, which
  // broken() tells apart.
  std::string_view ReadData();
  bool broken() const { return !error_.empty(); }
  const std::string& error() const { return error_; }

 private:
  struct Overrides;

  bool Fill();
  bool ReadExact(char* out, size_t size);
  bool ReadText(uint64_t size, std::string* text);
  bool SkipData();
  Result Broken(std::string message);

  const Source source_;
  std::string_view held_;
  uint64_t data_left_ = 0;
  uint64_t padding_left_ = 0;
  bool ended_ = false;
  std::string error_;
};

// "a/./b//c/" → "a/b/c", without a leading "./" or "/". False where a part is "..", or a NUL is in
// it. "" is the folder itself.
bool CleanMemberPath(std::string_view path, std::string* clean);

}  // namespace bunker::guest
