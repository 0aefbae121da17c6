// The tar writer and reader: what one writes the other reads, what is broken or leads out is told.
#include "agent/guest/tar_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace bunker::guest {
namespace {

using testing::HasSubstr;
using Result = TarReader::Result;

struct Member {
  TarEntry entry;
  std::string data;
};

// The archive in pieces of `step` bytes.
TarReader::Source InSteps(const std::string& archive, size_t step) {
  return [&archive, step, at = size_t{0}]() mutable -> std::string_view {
    const std::string_view piece = std::string_view(archive).substr(at, step);
    at += piece.size();
    return piece;
  };
}

Result ReadAll(const std::string& archive, size_t step, std::vector<Member>* members,
               std::string* error) {
  TarReader reader(InSteps(archive, step));
  for (;;) {
    Member member;
    const Result result = reader.Next(&member.entry);
    *error = reader.error();
    if (result != Result::kEntry) return result;
    for (auto piece = reader.ReadData(); !piece.empty(); piece = reader.ReadData()) {
      member.data += piece;
    }
    members->push_back(std::move(member));
  }
}

TarEntry Entry(TarEntry::Type type, std::string path, uint64_t size = 0, std::string link = "") {
  TarEntry entry;
  entry.type = type;
  entry.path = std::move(path);
  entry.size = size;
  entry.link = std::move(link);
  entry.mode = 0750;
  entry.uid = 1234;
  entry.gid = 4'000'000'000;
  entry.modified_s = 1'700'000'000;
  return entry;
}

std::string Archive(const std::vector<Member>& members) {
  std::string archive;
  for (const Member& member : members) {
    archive += TarHeader(member.entry) + member.data + TarPadding(member.data.size());
  }
  return archive + TarEnd();
}

std::vector<Member> Some() {
  const std::string long_name = std::string(90, 'a') + "/" + std::string(200, 'b');
  return {{Entry(TarEntry::Type::kFolder, "folder"), ""},
          {Entry(TarEntry::Type::kFile, "folder/file", 5), "hello"},
          {Entry(TarEntry::Type::kFile, "empty"), ""},
          {Entry(TarEntry::Type::kFile, long_name, 512), std::string(512, 'x')},
          {Entry(TarEntry::Type::kSymlink, "link", 0, std::string(300, 'l')), ""},
          {Entry(TarEntry::Type::kHardLink, "again", 0, "folder/file"), ""},
          {Entry(TarEntry::Type::kFile, "new\nline \xff", 513), std::string(513, 'y')}};
}

TEST(Tar, WhatIsWrittenIsRead) {
  const std::vector<Member> members = Some();
  const std::string archive = Archive(members);
  EXPECT_EQ(archive.size() % 512, 0u);
  for (const size_t step : {size_t{1}, size_t{511}, size_t{512}, size_t{70'000}}) {
    std::vector<Member> read;
    std::string error;
    ASSERT_EQ(ReadAll(archive, step, &read, &error), Result::kEnd) << error;
    ASSERT_EQ(read.size(), members.size());
    for (size_t i = 0; i < read.size(); ++i) {
      std::string path = members[i].entry.path;
      if (members[i].entry.type == TarEntry::Type::kFolder) path += "/";
      EXPECT_EQ(read[i].entry.path, path);
      EXPECT_EQ(read[i].entry.type, members[i].entry.type);
      EXPECT_EQ(read[i].entry.link, members[i].entry.link);
      EXPECT_EQ(read[i].entry.mode, 0750u);
      EXPECT_EQ(read[i].entry.uid, 1234u);
      EXPECT_EQ(read[i].entry.gid, 4'000'000'000u);
      EXPECT_EQ(read[i].entry.modified_s, 1'700'000'000);
      EXPECT_EQ(read[i].data, members[i].data);
    }
  }
}

TEST(Tar, EveryCutIsTold) {
  const std::string archive = Archive(Some());
  const size_t end = archive.size() - 1024;  // before the two empty blocks
  for (size_t cut = 0; cut < end; cut += 37) {
    std::vector<Member> read;
    std::string error;
    EXPECT_EQ(ReadAll(archive.substr(0, cut), 512, &read, &error), Result::kBroken) << cut;
    EXPECT_FALSE(error.empty());
  }
}

TEST(Tar, EveryFlippedByteOfAHeaderIsTold) {
  const std::string archive = Archive({{Entry(TarEntry::Type::kFile, "file", 5), "hello"}});
  // The entry has a pax header for its gid: 512 + 512 bytes before its own.
  constexpr size_t kAfterChecksum = 1024 + 155;  // nobody reads it
  for (size_t at = 1024; at < 1024 + 500; ++at) {
    if (at == kAfterChecksum) continue;
    std::string damaged = archive;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x41);
    std::vector<Member> read;
    std::string error;
    EXPECT_EQ(ReadAll(damaged, 512, &read, &error), Result::kBroken) << at;
  }
}

TEST(Tar, SizesBeyondUstarArePax) {
  TarEntry entry = Entry(TarEntry::Type::kFile, "huge", uint64_t{1} << 40);
  const std::string header = TarHeader(entry);
  TarReader reader(InSteps(header, 512));
  TarEntry read;
  ASSERT_EQ(reader.Next(&read), Result::kEntry);
  EXPECT_EQ(read.size, uint64_t{1} << 40);
  EXPECT_TRUE(reader.ReadData().empty());
  EXPECT_TRUE(reader.broken());
}

TEST(Tar, WhatIsNoFileIsRefused) {
  for (const char type : {'3', '4', '6', 'S', 'V', 'M'}) {
    std::string archive = Archive({{Entry(TarEntry::Type::kFile, "file"), ""}});
    const size_t header = 1024;
    // Another type, and the checksum that belongs to it.
    archive[header + 156] = type;
    uint32_t sum = 0;
    for (size_t i = 0; i < 512; ++i) {
      sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(archive[header + i]);
    }
    std::snprintf(&archive[header + 148], 8, "%06o", sum);
    std::vector<Member> read;
    std::string error;
    EXPECT_EQ(ReadAll(archive, 512, &read, &error), Result::kBroken);
    EXPECT_THAT(error, HasSubstr("no file"));
  }
}

TEST(Tar, NumbersInBase256AreRead) {
  std::string archive = TarHeader(Entry(TarEntry::Type::kFile, "file", 3)) + "abc" + TarPadding(3);
  archive += TarEnd();
  const size_t header = 1024;
  const std::string size = std::string("\x80", 1) + std::string(10, '\0') + "\x03";
  archive.replace(header + 124, 12, size);
  uint32_t sum = 0;
  for (size_t i = 0; i < 512; ++i) {
    sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(archive[header + i]);
  }
  std::snprintf(&archive[header + 148], 8, "%06o", sum);
  std::vector<Member> read;
  std::string error;
  ASSERT_EQ(ReadAll(archive, 512, &read, &error), Result::kEnd) << error;
  EXPECT_EQ(read.at(0).data, "abc");
}

TEST(Tar, MemberPathsStayInside) {
  std::string clean;
  EXPECT_TRUE(CleanMemberPath("./a//b/./c/", &clean));
  EXPECT_EQ(clean, "a/b/c");
  EXPECT_TRUE(CleanMemberPath("/etc/passwd", &clean));
  EXPECT_EQ(clean, "etc/passwd");
  EXPECT_TRUE(CleanMemberPath("./", &clean));
  EXPECT_EQ(clean, "");
  EXPECT_TRUE(CleanMemberPath("a/..b/c..", &clean));
  for (const char* path : {"..", "../a", "a/../b", "a/..", "/.."}) {
    EXPECT_FALSE(CleanMemberPath(path, &clean)) << path;
  }
  EXPECT_FALSE(CleanMemberPath(std::string_view("a\0b", 3), &clean));
}

}  // namespace
}  // namespace bunker::guest
