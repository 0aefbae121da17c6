// A folder as an ext4 file, made by the distribution's own mke2fs.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "common/proc/subprocess.h"
#include "gtest/gtest.h"

namespace bunker::agent::test {

inline void WriteBelow(const std::string& root, const std::string& path, const std::string& text) {
  const std::filesystem::path whole = root + "/" + path;
  std::filesystem::create_directories(whole.parent_path());
  std::ofstream(whole) << text;
}

inline void MakeExt4(const std::string& folder, const std::string& file) {
  const auto done = RunCommand(
      {"/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder, file, "32M"}, {},
      nullptr);
  ASSERT_TRUE(done.ok()) << done.status();
  ASSERT_TRUE(done->ok()) << done->stderr_data;
}

}  // namespace bunker::agent::test
