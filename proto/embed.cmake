# IN → OUT: a C++ file with IN's bytes as bunker_api_comments, bunker_api_comments_size.
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUT} "extern const unsigned char bunker_api_comments[];\n"
  "extern const unsigned long bunker_api_comments_size;\n"
  "const unsigned char bunker_api_comments[] = {\n${bytes}};\n"
  "const unsigned long bunker_api_comments_size = sizeof bunker_api_comments;\n")
