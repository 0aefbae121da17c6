// Package databases that are text: dpkg's, apk's, os-release, and the metadata of Python packages.
// The text comes from an image: anything may stand in it. Linear in its length.
//
// Thread-safe: free functions over the list given.
#pragma once

#include <string>
#include <string_view>

#include "agent/scan/package_list.h"
#include "bunker/scan/v1/inventory.pb.h"

namespace bunker::agent {

// var/lib/dpkg/status, or one file of status.d. In the latter packages have no status line:
// `installed_without_status`.
void ReadDpkgStatus(std::string_view text, bool installed_without_status, PackageList* list);

// var/lib/dpkg/info/*.list: one path a line.
void ReadDpkgPaths(std::string_view text, PackageList* list);

// lib/apk/db/installed.
void ReadApkInstalled(std::string_view text, PackageList* list);

scan::v1::Distribution ReadOsRelease(std::string_view text);

// METADATA or PKG-INFO. `origin` names it in a problem.
void ReadPythonMetadata(std::string_view text, const std::string& origin, PackageList* list);

// package.json.
void ReadNpmPackage(std::string_view text, const std::string& origin, PackageList* list);

}  // namespace bunker::agent
