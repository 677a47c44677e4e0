module example.org/tidegateheaders

go 1.21
