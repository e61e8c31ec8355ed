<?php
// Healthy is: PHP answers and the database does.
mysqli_report(MYSQLI_REPORT_OFF);
$db = @mysqli_connect('localhost', 'root', '', 'wordpress', 0, '/run/mysqld/mysqld.sock');
if (!$db || !$db->query('SELECT 1 FROM wp_options LIMIT 1')) {
    http_response_code(503);
    echo "the database does not answer\n";
    exit;
}
echo "ok\n";
